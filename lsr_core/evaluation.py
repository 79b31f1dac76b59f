"""Evaluation of runs that train together: a point of their curves, and every metric at the end."""

import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import one_hot, pad

from . import metrics
from .data import Split

CURVE_POINTS = 12
CURVE_EXAMPLES = 1000  # of a larger test set, the first so many make the curves and the spreads
EXAMPLES_OF_CLASS = 10  # training images of each of two classes, whose logits the information is measured on
STEPS = ((0, 0), (0, 1), (1, 0), (0, -1), (-1, 0))  # its augmentations: the image moved by a quarter of a pixel
SHARE = 0.25  # on 8×8 images a whole pixel changes the digit, so images are moved by a quarter
PROJECTION_CLASSES = 3  # the first three classes span the plane that features are projected on
CONFIDENCE = 0.8  # the mean largest probability at which erased information is compared beyond shrinkage
RADIUS, DIRECTIONS = 0.5, 4  # of the perturbations that measure sharpness

Metric = Callable[[Tensor, Tensor], Tensor]
_ERASED: dict[str, Metric] = {
    "erased_vector": partial(metrics.erased_information, reading="vector_variance"),
    "erased_std": partial(metrics.erased_information, reading="std_true_class"),
}
_SPREADS: dict[str, Metric] = {
    "uncertainty": lambda logits, _: metrics.predictive_uncertainty(logits),
    "diversity": metrics.confidence_diversity,
    "variance": metrics.confidence_variance,
    **_ERASED,
}


def evaluation_epochs(epochs: int) -> list[int]:
    """The epochs, at most 12 and always the last, after which validation and test are measured."""
    return sorted({round(epochs * (i + 1) / CURVE_POINTS) for i in range(CURVE_POINTS)} - {0})


@torch.no_grad()
def curve_point(validation: Tensor, test: Tensor, data: Split, before: Tensor | None) -> dict[str, Tensor]:
    """Accuracy and likelihood from validation logits `[S, N, K]` and those of the first test examples.

    `output_drift` is the divergence of validation outputs from those at the point `before`, nan at the first point.
    """
    return {
        **_fit("validation_", validation, data.validation_labels[..., : validation.shape[1]]),
        **_fit("test_", test, data.test_labels[..., : test.shape[1]]),
        "output_drift": torch.full((len(test),), torch.nan) if before is None else _drift(before, validation),
    }


@torch.no_grad()
def final_metrics(
    train: Tensor, validation: Tensor, test: Tensor, data: Split, superclasses: Tensor | None
) -> dict[str, Tensor]:
    """Every metric of logits `[S, N, K]` on the parts of the data, one value a run; validation chooses the temperature.

    `superclasses` `[K]` are those of the classes, where there are some; the temperature nearest to the truth is
    that of the first test examples. A run without an image of some class has no spreads on training images.
    """
    few, few_labels = test[:, :CURVE_EXAMPLES], data.test_labels[:CURVE_EXAMPLES].expand(len(test), -1)
    parts = [
        lambda: {"train_majority": _majority(data.train_labels, train.shape[-1])},
        lambda: _fit("train_", train, data.train_labels),
        lambda: _fit("validation_", validation, data.validation_labels),
        lambda: _fit("", test, data.test_labels),
        lambda: {"ece": metrics.ece(test, data.test_labels)},
        lambda: _scaled(validation, test, data),
        lambda: _spreads(_SPREADS, few, few_labels),
        lambda: {f"train_{name}": values for name, values in _spreads(_ERASED, train, data.train_labels).items()},
        lambda: _erased_at_equal_confidence(few, few_labels),
    ]
    if superclasses is not None:
        parts.append(lambda: {"similar_mass": _mass_on_similar(test, data.test_labels, superclasses)})
    if data.test_posterior is not None:
        parts.append(lambda: _distance_from_truth(test, data))
    return measured(parts)


def measured(parts: Iterable[Callable[[], dict[str, Tensor]]]) -> dict[str, Tensor]:
    """The metrics of all parts; one that fails is left out with a warning, so that a trained run is never lost."""
    found: dict[str, Tensor] = {}
    for part in parts:
        try:
            found |= part()
        except Exception as error:  # of any kind: training took long, and everything else was measured
            warnings.warn(f"some metrics cannot be measured and are left out ({error})", stacklevel=2)
    return found


def _fit(part: str, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    return {f"{part}accuracy": metrics.accuracy(logits, labels), f"{part}nll": metrics.nll(logits, labels)}


def _majority(labels: Tensor, classes: int) -> Tensor:
    """The share of the most frequent class of labels `[S, N]`."""
    return _counts(labels, classes).amax(-1).double() / labels.shape[-1]


def _counts(labels: Tensor, classes: int) -> Tensor:
    """How many of labels `[S, N]` are of each class, `[S, K]`."""
    return torch.stack([row.bincount(minlength=classes) for row in labels])


def _scaled(validation: Tensor, test: Tensor, data: Split) -> dict[str, Tensor]:
    temperature = metrics.best_temperature(validation, data.validation_labels)
    return {"nll_scaled": metrics.nll(test, data.test_labels, temperature), "temperature": temperature}


def _distance_from_truth(test: Tensor, data: Split) -> dict[str, Tensor]:
    """Divergences from the posterior or from people's votes, on all classes and on the wrong ones, also at the best τ.

    Of the wrong classes, the best τ is their own: what is left is their order and their ratios, not their scale.
    """
    truth, labels = data.test_posterior, data.test_labels
    label = one_hot(labels, test.shape[-1]).bool()
    wrong = truth.masked_fill(label, 0)
    dark_temperature = _nearest(wrong / wrong.sum(-1, keepdim=True), test.masked_fill(label, -torch.inf))
    return {
        "kl_posterior": metrics.kl_to_posterior(truth, test),
        "kl_posterior_scaled": metrics.kl_to_posterior(truth, test, _nearest(truth, test)),
        "kl_dark": metrics.kl_of_wrong_classes(truth, test, labels),
        "kl_dark_scaled": metrics.kl_of_wrong_classes(truth, test / dark_temperature[:, None, None], labels),
    }


def _nearest(truth: Tensor, logits: Tensor) -> Tensor:
    """The temperature nearest to the truth `[N, K]` on the first examples, of those that have one: not 0, not nan."""
    known = truth[:CURVE_EXAMPLES].sum(-1) > 0
    return metrics.best_temperature(logits[:, :CURVE_EXAMPLES][:, known], truth[:CURVE_EXAMPLES][known])


def _spreads(metric_of: dict[str, Metric], logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Metrics of outputs `[S, N, K]`; nan for a run of 3 images or whose labels `[S, N]` lack a class.

    In single precision: the last bit of double sums depends on the size of the stack.
    """
    complete = _counts(labels, logits.shape[-1]).all(-1) & (labels.shape[-1] > 3)
    found = {name: torch.full((len(logits),), torch.nan) for name in metric_of}
    for name, metric in metric_of.items() if complete.any() else ():
        found[name][complete] = metric(logits[complete], labels[complete]).float()
    return found


def _erased_at_equal_confidence(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    matched = logits.double() / metrics.temperature_of_confidence(logits, CONFIDENCE)[:, None, None]
    return {f"{name}_matched": values for name, values in _spreads(_ERASED, matched, labels).items()}


def _drift(before: Tensor, now: Tensor) -> Tensor:
    p, q = before.log_softmax(-1), now.log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1).mean(-1, dtype=torch.float64)


def _mass_on_similar(logits: Tensor, labels: Tensor, superclasses: Tensor) -> Tensor:
    """Of the probability that a network gives to wrong classes, the share on those of the label's superclass."""
    wrong = logits.softmax(-1) * (1 - one_hot(labels, logits.shape[-1]))
    similar = (superclasses[labels][..., None] == superclasses).to(wrong)
    return ((wrong * similar).sum((-1, -2)) / wrong.sum((-1, -2))).double()


def mean_of_known(values: Sequence[Tensor]) -> Tensor:
    """The mean of tensors `[S]` where they are not nan, nan where none is.

    They are added one after the other: how torch sums a stack of them depends on S.
    """
    known = [~value.isnan() for value in values]
    return sum(value.where(is_known, 0) for value, is_known in zip(values, known, strict=True)) / sum(known)


def cluster_metrics(features: Tensor, labels: Tensor, superclasses: Tensor) -> dict[str, Tensor]:
    """Distances between class centres of features `[S, N, H]`, in units of the scatter around them (Shen 2021 §3).

    Of classes of one superclass, and of different ones; `superclasses` `[K]` numbers the classes'.
    """
    centres = metrics.class_means(features, labels, len(superclasses))
    scatter = (features - centres[:, labels]).square().sum(-1).mean(-1).sqrt().double()
    similar, other = metrics.cluster_distances(features, labels, superclasses)
    return {"similar_distance": similar / scatter, "other_distance": other / scatter}


def two_classes(labels: Tensor) -> Tensor:
    """Places `[S, 20]` in labels `[S, N]` of ten examples of each of a run's two largest classes; −1 where too few."""
    counts = one_hot(labels, max(2, int(labels.max()) + 1)).sum(-2)
    largest = counts.argsort(dim=-1, descending=True, stable=True)[:, :2]
    places = torch.full((len(labels), 2, EXAMPLES_OF_CLASS), -1)
    for i, j in product(range(len(labels)), range(2)):
        found = (labels[i] == largest[i, j]).nonzero()[:EXAMPLES_OF_CLASS, 0]
        places[i, j, : len(found)] = found
    return places.flatten(1)


def shifted(images: Tensor, side: int) -> Tensor:
    """Images `[S, N, side²]` in five positions, one after the other: `[S, 5N, side²]`; zeros come in at the edges.

    A shift by a part of a pixel is a linear interpolation.
    """
    square = images.unflatten(-1, (side, side))
    padded = pad(square, (1, 1, 1, 1))
    shifts = [padded[..., 1 + i : 1 + i + side, 1 + j : 1 + j + side] for i, j in STEPS]
    return torch.cat([square.lerp(whole, SHARE).flatten(-2) for whole in shifts], 1)


class InformationProbe(NamedTuple):
    """The images on which Müller 2019 measures information along training: 20 of two classes in five positions."""

    inputs: Tensor  # [S, 100, D]
    labels: Tensor  # [S, 20]
    valid: Tensor  # [S], whether the run has so many

    @classmethod
    def of(cls, data: Split, side: int) -> "InformationProbe":
        """Those of training data `[S, N, side²]`."""
        places = two_classes(data.train_labels)
        chosen = places.clamp_min(0)
        rows = chosen[..., None].expand(-1, -1, side**2).to(data.train_inputs.device)
        images = data.train_inputs.gather(1, rows)
        return cls(shifted(images, side), data.train_labels.gather(1, chosen), (places >= 0).all(-1))

    def information(self, logits: Tensor) -> Tensor:
        """Between an image and the difference of the two classes' logits `[S, 100, K]`, in nats; nan where too few."""
        classes = self.labels[:, [0, -1]]
        first, second = logits.gather(-1, classes[:, None].expand(-1, logits.shape[1], -1)).unbind(-1)
        information = metrics.mutual_information((first - second).unflatten(1, (len(STEPS), -1)).mT)
        return information.float().where(self.valid, torch.nan)


def projected(features: Tensor, labels: Tensor, templates: Tensor) -> list[list[float]]:
    """Rows x, y, class of features `[N, H]` of the first three classes, on the plane of their `templates` `[3, H]`."""
    kept = labels < PROJECTION_CLASSES
    points = metrics.class_plane(features[kept], templates)
    rows = zip(points.tolist(), labels[kept].tolist(), strict=True)
    return [[round(x, 3), round(y, 3), label] for (x, y), label in rows]


@torch.no_grad()
def sharpness(
    network: nn.Module, weights: dict[str, Tensor], data: Split, generators: Sequence[torch.Generator]
) -> Tensor:
    """How much the training cross-entropy rises, in nats, along random directions of the weights `[S]`.

    Each direction has, in every unit's incoming weights, half their norm (filter normalisation, Li et al. 2018);
    biases and BatchNorm stay. A mean over a few directions, the same for all methods of a seed.
    """
    matrices = {name: w for name, w in weights.items() if w.ndim >= 3 and w.shape[1] > 1}

    def nll(changed: dict[str, Tensor]) -> Tensor:
        logits = functional_call(network, {**weights, **changed}, (data.train_inputs,))
        return metrics.nll(logits.cpu(), data.train_labels)

    plain, rises = nll({}), []
    for _ in range(DIRECTIONS):
        rises.append(nll({name: w + RADIUS * direction(w, generators) for name, w in matrices.items()}) - plain)
    return torch.stack(rises).mean(0)


def direction(weight: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """A random direction `[S, in, out]` or `[S, out, in, 3, 3]` with the weight's norm in every unit."""
    drawn = torch.stack([torch.randn(weight.shape[1:], generator=g) for g in generators]).to(weight)
    incoming = (1,) if weight.ndim == 3 else tuple(range(2, weight.ndim))
    norms = (weight.square().sum(incoming, keepdim=True) / drawn.square().sum(incoming, keepdim=True)).sqrt()
    return drawn * norms
