"""What is measured of a stack of runs: a point of their curves, and everything at the end."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import one_hot

from . import metrics
from .data import Split

CURVE_POINTS = 12
CURVE_EXAMPLES = 1000  # of a larger test set, the first so many make the curves and the spreads
CONFIDENCE = 0.8  # the mean largest probability at which erased information is compared beyond shrinkage
RADIUS, DIRECTIONS = 0.5, 4  # of the perturbations that measure sharpness

_AS_PRINTED = partial(metrics.erased_information, reading="vector_variance")
_OF_LABEL = partial(metrics.erased_information, reading="std_true_class")
_SPREADS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "uncertainty": lambda z, _: metrics.predictive_uncertainty(z),
    "diversity": metrics.confidence_diversity,
    "variance": metrics.confidence_variance,
    "erased_vector": _AS_PRINTED,
    "erased_std": _OF_LABEL,
    "erased_vector_matched": _AS_PRINTED,
    "erased_std_matched": _OF_LABEL,
}


class Outputs(NamedTuple):
    """Logits `[S, N, K]` on the three parts of the data."""

    train: Tensor
    validation: Tensor
    test: Tensor


def stated_epochs(epochs: int) -> list[int]:
    """The epochs, at most 12 and always the last, after which validation and test are measured."""
    return sorted({round(epochs * (i + 1) / CURVE_POINTS) for i in range(CURVE_POINTS)} - {0})


@torch.no_grad()
def curve_point(validation: Tensor, test: Tensor, data: Split, before: Tensor | None) -> dict[str, Tensor]:
    """Accuracy and likelihood from validation logits `[S, N, K]` and those of the first test examples.

    `moved` is the divergence of validation outputs from those at the point `before`; at the first point it is nan.
    """
    labels = data.test_labels[..., : test.shape[1]]
    moved = torch.full((len(test),), torch.nan) if before is None else _moved(before, validation)
    return {
        "validation_accuracy": metrics.accuracy(validation, data.validation_labels),
        "validation_nll": metrics.nll(validation, data.validation_labels),
        "test_accuracy": metrics.accuracy(test, labels),
        "test_nll": metrics.nll(test, labels),
        "moved": moved,
    }


@torch.no_grad()
def final_metrics(outputs: Outputs, data: Split, groups: Tensor | None) -> dict[str, Tensor]:
    """Every metric of the outputs, one value a run; the temperature is chosen on validation.

    `groups` `[K]` are the superclasses of the classes, where there are some. A run without an image of some class has
    no spreads on training images.
    """
    train, validation, test = outputs
    temperature = metrics.best_temperature(validation, one_hot(data.validation_labels, test.shape[-1]))
    final = {
        "train_accuracy": metrics.accuracy(train, data.train_labels),
        "train_nll": metrics.nll(train, data.train_labels),
        "validation_accuracy": metrics.accuracy(validation, data.validation_labels),
        "validation_nll": metrics.nll(validation, data.validation_labels),
        "accuracy": metrics.accuracy(test, data.test_labels),
        "nll": metrics.nll(test, data.test_labels),
        "nll_scaled": metrics.nll(test, data.test_labels, temperature),
        "ece": metrics.ece(test, data.test_labels),
        "temperature": temperature,
        **_spreads(test[:, :CURVE_EXAMPLES], data.test_labels[:CURVE_EXAMPLES].expand(len(test), -1)),
        **{f"train_{name}": values for name, values in _spreads(train, data.train_labels).items()},
    }
    if groups is not None:
        final["similar_mass"] = _mass_on_similar(test, data.test_labels, groups)
    if data.test_posterior is not None:
        best = metrics.best_temperature(test, data.test_posterior)
        final |= {
            "kl_posterior": metrics.kl_to_posterior(data.test_posterior, test),
            "kl_posterior_scaled": metrics.kl_to_posterior(data.test_posterior, test, best),
            "kl_dark": metrics.kl_of_dark_part(data.test_posterior, test, data.test_labels),
        }
    return final


def _spreads(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """How outputs `[S, N, K]` spread over images; nan for a run of 3 images or whose labels `[S, N]` lack a class.

    In single precision: the last bit of their double sums depends on the size of the stack.
    """
    complete = one_hot(labels, logits.shape[-1]).any(-2).all(-1) & (labels.shape[-1] > 3)
    spreads = {name: torch.full((len(logits),), torch.nan) for name in _SPREADS}
    if complete.any():
        z, y = logits[complete], labels[complete]
        matched = z / metrics.temperature_of_confidence(z, CONFIDENCE)[:, None, None].to(z)
        for name, measure in _SPREADS.items():
            spreads[name][complete] = measure(matched if name.endswith("_matched") else z, y).float()
    return spreads


def _moved(before: Tensor, now: Tensor) -> Tensor:
    p, q = before.log_softmax(-1), now.log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1).mean(-1, dtype=torch.float64)


def _mass_on_similar(logits: Tensor, labels: Tensor, groups: Tensor) -> Tensor:
    """Of the probability that a network gives to wrong classes, the share on those of the label's superclass."""
    wrong = logits.softmax(-1) * (1 - one_hot(labels, logits.shape[-1]))
    similar = (groups[labels][..., None] == groups).to(wrong)
    return ((wrong * similar).sum((-1, -2)) / wrong.sum((-1, -2))).double()


@torch.no_grad()
def sharpness(
    network: nn.Module, weights: dict[str, Tensor], data: Split, generators: Sequence[torch.Generator]
) -> Tensor:
    """How much the training cross-entropy rises, in nats, along random directions of the weights `[S]`.

    Each direction has, in every unit's incoming weights, half their norm (filter normalisation, Li et al. 2018);
    biases and BatchNorm stay. A mean over a few directions, the same for all methods of a seed.
    """
    matrices = {name: w for name, w in weights.items() if w.ndim >= 3 and w.shape[1] > 1}
    plain = metrics.nll(functional_call(network, weights, (data.train_inputs,)), data.train_labels)
    rises = []
    for _ in range(DIRECTIONS):
        moved = {name: w + RADIUS * _direction(w, generators) for name, w in matrices.items()}
        logits = functional_call(network, {**weights, **moved}, (data.train_inputs,))
        rises.append(metrics.nll(logits, data.train_labels) - plain)
    return torch.stack(rises).mean(0)


def _direction(weight: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """A random direction `[S, in, out]` or `[S, out, in, 3, 3]` with the weight's norm in every unit."""
    drawn = torch.stack([torch.randn(weight.shape[1:], generator=g) for g in generators]).to(weight)
    incoming = (1,) if weight.ndim == 3 else tuple(range(2, weight.ndim))
    norms = (weight.square().sum(incoming, keepdim=True) / drawn.square().sum(incoming, keepdim=True)).sqrt()
    return drawn * norms
