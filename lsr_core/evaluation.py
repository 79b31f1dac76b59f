"""What is measured of a stack of runs: a point of their curves, and everything at the end."""

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from . import metrics
from .data import Split

CURVE_POINTS = 12
CURVE_EXAMPLES = 1000  # of a larger test set, the first so many make the curves


def stated_epochs(epochs: int) -> list[int]:
    """The epochs, at most 12 and always the last, after which validation and test are measured."""
    return sorted({round(epochs * (i + 1) / CURVE_POINTS) for i in range(CURVE_POINTS)} - {0})


@torch.no_grad()
def curve_point(validation: Tensor, test: Tensor, data: Split) -> dict[str, Tensor]:
    """Accuracy and likelihood from validation logits `[S, N, K]` and those of the first test examples."""
    labels = data.test_labels[..., : test.shape[1]]
    return {
        "validation_accuracy": metrics.accuracy(validation, data.validation_labels),
        "validation_nll": metrics.nll(validation, data.validation_labels),
        "test_accuracy": metrics.accuracy(test, labels),
        "test_nll": metrics.nll(test, labels),
    }


@torch.no_grad()
def final_metrics(train: Tensor, validation: Tensor, test: Tensor, data: Split) -> dict[str, Tensor]:
    """Every metric, one value a run, from logits `[S, N, K]`; the temperature is chosen on validation."""
    temperature = metrics.best_temperature(validation, one_hot(data.validation_labels, test.shape[-1]))
    final = {
        "train_accuracy": metrics.accuracy(train, data.train_labels),
        "validation_accuracy": metrics.accuracy(validation, data.validation_labels),
        "validation_nll": metrics.nll(validation, data.validation_labels),
        "accuracy": metrics.accuracy(test, data.test_labels),
        "nll": metrics.nll(test, data.test_labels),
        "nll_scaled": metrics.nll(test, data.test_labels, temperature),
        "ece": metrics.ece(test, data.test_labels),
        "temperature": temperature,
    }
    if data.test_posterior is not None:
        best = metrics.best_temperature(test, data.test_posterior)
        final |= {
            "kl_posterior": metrics.kl_to_posterior(data.test_posterior, test),
            "kl_posterior_scaled": metrics.kl_to_posterior(data.test_posterior, test, best),
            "kl_dark": metrics.kl_of_dark_part(data.test_posterior, test, data.test_labels),
        }
    return final
