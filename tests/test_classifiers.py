import numpy as np
import pytest
from scipy import stats

from lsr_core import InputError, objective
from lsr_core.data import dataset
from lsr_core.run import Run
from lsr_core.schedule import Schedule
from study.classifiers import CLASSIFIERS, accuracies, classifiers_table
from study.results import collect
from study.settings import DIGITS, Setting

MIXTURE = Setting("mixture-10-80", 300)


@pytest.mark.parametrize("setting", [DIGITS[0], MIXTURE])
def test_nearest_centroid_is_the_nearest_mean_of_the_seeds_training_rows(setting):
    split = dataset(setting.data).split(setting.train, 3)
    inputs, labels, test_inputs, test_labels = (
        part.numpy() for part in (split.train_inputs, split.train_labels, split.test_inputs, split.test_labels)
    )
    means = np.array([inputs[labels == k].mean(0) for k in range(10)])
    nearest = np.linalg.norm(test_inputs[:, None] - means, axis=-1).argmin(1)
    assert accuracies(setting, 3)["nearest centroid"] == np.mean(nearest == test_labels)


@pytest.mark.parametrize(
    ("setting", "name", "percent"),
    [
        (MIXTURE, "nearest centroid", 73.5),
        (DIGITS[0], "SVM with RBF kernel", 90.5),
        (DIGITS[1], "SVM with RBF kernel", 94.7),
    ],
)
def test_means_are_those_of_another_computation(setting, name, percent):
    assert abs(100 * np.mean([accuracies(setting, seed)[name] for seed in range(5)]) - percent) < 1


def test_a_classifier_is_trained_once():
    assert accuracies(DIGITS[0], 0) is accuracies(DIGITS[0], 0)
    assert accuracies(DIGITS[0], 0) != accuracies(DIGITS[0], 1)


def test_the_table_has_classifiers_and_networks_on_the_same_seeds():
    arm = Run("digits", 100, objective("lsr"), Schedule(0.1, epochs=20))
    results = collect([arm], [0, 1, 2, 3])
    table = classifiers_table(results, {"64-64, lsr": {str(DIGITS[0]): arm}}, [0, 1, 3])
    assert list(table.index) == [*CLASSIFIERS, "64-64, lsr"]
    ((column, cells),) = table.items()
    assert column == "digits, n = 100, % [95 %]"
    for name, values in (
        ("logistic regression", [accuracies(DIGITS[0], seed)["logistic regression"] for seed in (0, 1, 3)]),
        ("64-64, lsr", results.values(arm, "accuracy")[[0, 1, 3]]),
    ):
        low, high = stats.ttest_1samp(np.multiply(100, values), 0).confidence_interval(0.95)
        assert cells[name] == f"{100 * np.mean(values):.2f} [{low:.2f}, {high:.2f}]"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (Setting("digit", 100), "unknown data set 'digit'"),
        (Setting("digits", 0), "digits has 1 to 700 training examples"),
        (Setting("cifar100", 5000), "cifar100 holds images with channels; the classifiers take vectors, such as"),
        (
            Setting("digits", 1),
            r"has 1 class\(es\) in 1 training example\(s\) of seed 0; the classifiers need two classes",
        ),
        (Setting("digits", 2), "and more examples than classes"),
    ],
)
def test_what_no_classifier_can_learn_from_is_refused(setting, message):
    with pytest.raises(InputError, match=message):
        accuracies(setting, 0)
    with pytest.raises(InputError, match="seed"):
        accuracies(DIGITS[0], -1)


def test_a_class_of_one_example_is_no_obstacle():
    assert 0.1 < min(accuracies(Setting("digits", 20), 0).values()) < 0.9
