"""What is measured on a network's outputs.

Logits are `[..., N, K]`, labels int64 `[N]` or `[..., N]`; the result has the leading axes, one value a run.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from .losses import kl_divergence

_LOG_RANGE = math.log(100)  # temperatures are searched from 1/100 to 100
_HALVINGS = 24


def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """The share of examples whose label has the largest logit, from 0 to 1; equal logits answer nothing."""
    by_class = logits.mT.contiguous()  # with the classes in front, torch is several times faster for few classes
    largest = by_class.amax(-2)
    right = (_of_label(by_class, labels) == largest) & (largest > by_class.amin(-2))
    return right.double().mean(-1)


def nll(logits: Tensor, labels: Tensor, temperature: Tensor | float = 1.0) -> Tensor:
    """Negative log-likelihood of the labels in nats, averaged over examples, after division by `temperature`."""
    by_class = _scaled(logits, temperature).mT.contiguous()
    return (by_class.logsumexp(-2) - _of_label(by_class, labels)).mean(-1, dtype=torch.float64)


def ece(logits: Tensor, labels: Tensor, bins: int = 15) -> Tensor:
    """Expected calibration error with equal-width bins, from 0 to 1 (Guo 2017 Eq. 3)."""
    confidence, predicted = logits.softmax(-1).max(-1)
    gap = confidence.double() - (predicted == labels).double()
    index = (confidence * bins).ceil().long().clamp(1, bins) - 1
    total = torch.zeros((*gap.shape[:-1], bins), dtype=gap.dtype, device=gap.device).scatter_add_(-1, index, gap)
    return total.abs().sum(-1) / labels.shape[-1]


def best_temperature(logits: Tensor, targets: Tensor) -> Tensor:
    """The temperature in [1/100, 100] that minimises the cross-entropy with probabilities `[N, K]` (Guo 2017).

    Found by halving the interval of log T on the sign of the slope, which rises with 1/T.
    """
    wanted = (logits * targets).sum((-1, -2), dtype=torch.float64)
    by_class = logits.mT.contiguous()
    low = torch.full_like(wanted, -_LOG_RANGE)
    high = -low
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        softened = by_class * torch.exp(-middle)[..., None, None].to(logits.dtype)
        too_sharp = (log_softmax(softened, -2).exp() * by_class).sum((-1, -2), dtype=torch.float64) > wanted
        low, high = torch.where(too_sharp, middle, low), torch.where(too_sharp, high, middle)
    return torch.exp((low + high) / 2)


def kl_to_posterior(posterior: Tensor, logits: Tensor, temperature: Tensor | float = 1.0) -> Tensor:
    """$D_{KL}$ from the true posterior `[N, K]` to the network's distribution, in nats, averaged over examples."""
    return kl_divergence(posterior, _scaled(logits.double(), temperature)).mean(-1)


def kl_of_dark_part(posterior: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """The same on the wrong classes alone, both sides renormalised: what is known beyond the label."""
    classes = logits.shape[-1]
    wrong = torch.arange(classes) != labels[:, None]
    rest = wrong.nonzero()[:, 1].reshape(-1, classes - 1)
    truth = posterior.gather(-1, rest)
    dark = logits.double().gather(-1, rest.expand(*logits.shape[:-1], classes - 1))
    return kl_divergence(truth / truth.sum(-1, keepdim=True), dark).mean(-1)


def _of_label(by_class: Tensor, labels: Tensor) -> Tensor:
    """The entries `[..., N]` of the labels among `[..., K, N]`."""
    index = labels.expand(*by_class.shape[:-2], by_class.shape[-1])
    return by_class.gather(-2, index[..., None, :])[..., 0, :]


def _scaled(logits: Tensor, temperature: Tensor | float) -> Tensor:
    return logits / torch.as_tensor(temperature, dtype=logits.dtype)[..., None, None]
