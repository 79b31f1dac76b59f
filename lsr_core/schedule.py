"""The schedule of a training run: how long, with which steps, and what of the weights is kept."""

from dataclasses import dataclass
from math import cos, pi
from typing import Any, Literal, get_args

from . import errors
from .errors import require

Optimizer = Literal["sgd", "adam"]
Curve = Literal["cosine", "step", "one-cycle", "inverse-root"]
_RISE, _START, _END = 0.3, 1 / 25, 1 / 25e4  # one cycle: share of the epochs that rises, first and last rate


@dataclass(frozen=True)
class Schedule:
    """Stochastic gradient descent with momentum, or Adam, for `epochs` passes over the training set.

    Adam (Kingma & Ba 2015) has β₁ = `momentum` and β₂ = 0.999, and is for networks for images and sentences.
    The learning rate follows `curve`: `"cosine"` falls to zero by half a cosine, `"step"` is multiplied by `drop` at
    each epoch of `milestones`, `"one-cycle"` rises from 1/25 for 30 % of the time and falls to almost nothing (Smith &
    Topin 2019), `"inverse-root"` falls with the square root of the epochs that are over, from 1 at the end of the
    warm-up (Vaswani et al. 2017). Before that it rises linearly for `warmup` epochs. `weight_decay` is coupled (added
    to the gradient) and acts on all weights and biases, on those of the last layer `head_decay` where it is given.
    `stop` is the last epoch of a run that ends before its schedule does.
    """

    learning_rate: float
    weight_decay: float = 0.0
    epochs: int = 60
    batch_size: int = 25
    momentum: float = 0.9
    nesterov: bool = False
    curve: Curve = "cosine"
    milestones: tuple[int, ...] = ()
    drop: float = 0.1
    warmup: int = 0
    head_decay: float | None = None
    stop: int | None = None
    optimizer: Optimizer = "sgd"

    def __post_init__(self) -> None:
        errors.hold_plain(self)
        errors.require_positive("learning_rate", self.learning_rate)
        for name in ("weight_decay", "head_decay"):
            if getattr(self, name) is not None:
                errors.require_not_negative(name, getattr(self, name))
        for name in ("epochs", "batch_size"):
            errors.require_count(name, getattr(self, name))
        for name in ("momentum", "drop"):
            errors.require_fraction(name, getattr(self, name))
        require(isinstance(self.nesterov, bool), f"nesterov is {self.nesterov!r}; it must be True or False")
        require(self.curve in get_args(Curve), f"unknown curve {self.curve!r}; there are {', '.join(get_args(Curve))}")
        names = get_args(Optimizer)
        require(self.optimizer in names, f"unknown optimizer {self.optimizer!r}; there are {', '.join(names)}")
        require(not (self.nesterov and self.optimizer == "adam"), "nesterov is True; adam has no such momentum")
        require(not self.nesterov or self.momentum > 0, "momentum is 0; nesterov needs one above 0")
        require(self.momentum < 1 or self.optimizer == "sgd", f"momentum is {self.momentum}; adam needs one below 1")
        object.__setattr__(self, "milestones", errors.counts("milestones", self.milestones))
        right = f"it must be a whole number of epochs below {self.epochs}"
        errors.require_number("warmup", self.warmup, int, lambda n: 0 <= n < self.epochs, right)
        require(self.warmup or self.curve != "inverse-root", "warmup is 0; the curve 'inverse-root' falls from its end")
        if self.stop is not None:
            errors.require_count("stop", self.stop)
            require(self.stop <= self.epochs, f"stop is {self.stop}; the schedule has {self.epochs} epochs")
        for name in ("learning_rate", "weight_decay", "momentum", "drop", "head_decay"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, float(getattr(self, name)))

    @property
    def last(self) -> int:
        """The epoch after which a run ends."""
        return self.stop or self.epochs

    def rate(self, done: float) -> float:
        """What the learning rate is multiplied by when `done` epochs are over, a fraction within an epoch."""
        if done < self.warmup:
            return done / self.warmup
        along = (done - self.warmup) / (self.epochs - self.warmup)
        if self.curve == "inverse-root":
            return (self.warmup / done) ** 0.5
        if self.curve == "cosine":
            return _between(1, 0, along)
        if self.curve == "one-cycle":
            rising = along < _RISE
            return _between(_START, 1, along / _RISE) if rising else _between(1, _END, (along - _RISE) / (1 - _RISE))
        return self.drop ** sum(epoch <= done for epoch in self.milestones)

    def canonical(self) -> dict[str, Any]:
        """Every constant, as plain values; an optimizer where it is not SGD."""
        constants = {**vars(self), "milestones": list(self.milestones)}
        if self.optimizer == "sgd":
            del constants["optimizer"]
        return constants


def _between(start: float, end: float, along: float) -> float:
    """Half a cosine from one value to another."""
    return end + (start - end) * (1 + cos(pi * along)) / 2
