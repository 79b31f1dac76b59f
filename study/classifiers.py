"""scikit-learn's classifiers beside the study's networks: the same training examples by seed, the same test part.

They take inputs as the networks do, pixels from 0 to 1 or coordinates with noise of 1. These share a unit, so that
nothing is standardised. No constant is tuned, and all are the same everywhere: scikit-learn's defaults, but for the
shrunk covariance of the linear discriminant (Ledoit and Wolf 2004), since n = 100 is hardly more than the 64 pixels of
digits, the SVM's C = 10, and the number of steps that logistic regression may take.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial

import numpy as np
import pandas as pd
from sklearn.base import ClassifierMixin
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestCentroid
from sklearn.svm import SVC

from lsr_core.data import dataset
from lsr_core.errors import require
from lsr_core.run import Run

from .results import MEASURES, Results, effect_of
from .settings import Setting

CLASSIFIERS: dict[str, Callable[[], ClassifierMixin]] = {
    "nearest centroid": NearestCentroid,
    "linear discriminant": partial(LinearDiscriminantAnalysis, solver="lsqr", shrinkage="auto"),
    "logistic regression": partial(LogisticRegression, max_iter=1000),
    "SVM with RBF kernel": partial(SVC, C=10),
}


@cache
def accuracies(setting: Setting, seed: int) -> dict[str, float]:
    """Each classifier's test accuracy as a fraction, after training on this seed's examples.

    Raises `InputError` for images with channels, and where there are too few examples to compare classes.
    """
    source = dataset(setting.data)
    vectors = f"{setting.data} holds images with channels; the classifiers take vectors, such as digits and mixtures"
    require(source.image_shape is None, vectors)
    split = source.split(setting.train, seed)
    found = len(split.train_labels.unique())
    few = f"{setting} has {found} class(es) in {setting.train} training example(s) of seed {seed}"
    require(1 < found < setting.train, f"{few}; the classifiers need two classes, and more examples than classes")
    inputs, labels, _, _, test_inputs, test_labels, _ = (part if part is None else part.numpy() for part in split)
    with warnings.catch_warnings():
        harmless = "self.within_class_std_dev_|Only one sample"  # a pixel without ink, a class of one example
        warnings.filterwarnings("ignore", harmless, UserWarning)
        fitted = {name: make().fit(inputs, labels) for name, make in CLASSIFIERS.items()}
    return {name: classifier.score(test_inputs, test_labels) for name, classifier in fitted.items()}


def classifiers_table(
    results: Results, networks: Mapping[str, Mapping[str, Run]], seeds: Sequence[int]
) -> pd.DataFrame:
    """Test accuracy of the classifiers and of networks on the same seeds: means with 95 % intervals.

    A row a classifier, then a row a network; a column a setting. `networks` holds arms by setting, under a row's name.
    """
    measure, columns = MEASURES["accuracy"], {}
    for setting, arm in next(iter(networks.values())).items():
        by_seed = [accuracies(Setting(arm.data, arm.train), seed) for seed in seeds]
        values = {name: [own[name] for own in by_seed] for name in CLASSIFIERS}
        values |= {name: results.values(line[setting], "accuracy", seeds) for name, line in networks.items()}
        means = {name: effect_of(measure.scale * np.array(own), measure.digits) for name, own in values.items()}
        columns[f"{setting}, % [95 %]"] = {name: mean.unsigned for name, mean in means.items()}
    return pd.DataFrame(columns).rename_axis("classifier")
