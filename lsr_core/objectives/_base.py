"""What all objectives share: constants that are checked, a call that is checked, hooks."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn

from ..errors import (
    InputError,
    hold_plain,
    require,
    require_classes,
    require_count,
    require_fraction,
    require_not_negative,
    require_positive,
    require_temperature,
)
from ..losses import Loss, divergence, smoothing_loss, weighted
from ..memory import Memory
from ..teachers import Share, Teacher, Uniform, probabilities

_RULES: dict[str, Callable[[str, Any], None]] = {
    **dict.fromkeys(("alpha", "epsilon", "share", "decay"), require_fraction),
    **dict.fromkeys(("temperature", "teacher_temperature"), require_temperature),
    **dict.fromkeys(("multiplier", "a", "rate"), require_positive),
    **dict.fromkeys(("beta", "gap", "weight", "hard_weight", "soft_weight"), require_not_negative),
    **dict.fromkeys(("copies", "every", "epochs"), require_count),
}


class Batch(NamedTuple):
    """What an objective is called with: `[..., B, K]`, `[..., B]`, `[..., B, K]` or None, `[..., B]` or None.

    Labels may be distributions `[..., B, K]` where the method `takes_mixtures`.
    """

    logits: Tensor
    labels: Tensor
    teacher_logits: Tensor | None
    index: Tensor | None

    @property
    def trains(self) -> bool:
        """Whether a step of the optimizer is to follow."""
        return torch.is_grad_enabled() and self.logits.requires_grad


@dataclass(frozen=True, kw_only=True)
class Objective:
    """$\\mathcal L = h\\,H(y,p) + s\\,D$ with this method's $h$, $s$ and divergence, usually $D_{KL}(q\\|p_\\tau)$."""

    name: ClassVar[str]
    memory: ClassVar[Memory | None] = None
    takes_teacher: ClassVar[bool] = False  # whether another network may teach, and whether one must
    needs_teacher: ClassVar[bool] = False
    several_teachers: ClassVar[bool] = False  # whether `teacher_logits` may be those of n teachers, [n, ..., B, K]
    takes_mixtures: ClassVar[bool] = False  # whether labels may be distributions: the teacher does not depend on them

    def __post_init__(self) -> None:
        hold_plain(self)
        for field in fields(self):
            if field.name in _RULES:
                _RULES[field.name](field.name, getattr(self, field.name))

    @property
    def student_temperature(self) -> float:
        """τ, which softens the student in the divergence."""
        return getattr(self, "temperature", 1.0)

    def weights(self, classes: int) -> tuple[float, float]:
        """$h$ and $s$: the weights of the cross-entropy with the labels, and of the divergence, for K `classes`.

        $1-\\alpha$ and $\\alpha\\tau^2$ with the student's τ, where a method does not say otherwise.
        """
        return 1 - self.alpha, self.alpha * self.student_temperature**2

    def soft(self, batch: Batch) -> Tensor | None:
        """The divergence of every example `[..., B]`; None while there is no teacher yet: plain cross-entropy."""
        raise TypeError(f"{type(self).__name__} has no divergence")

    def remember(self, batch: Batch) -> None:
        """Take in a training batch whose loss was given."""
        self.memory.count_loss()

    def __call__(
        self,
        logits: Tensor,
        labels: Tensor,
        teacher_logits: Tensor | None = None,
        index: Tensor | None = None,
        *,
        class_axis: int | None = None,
    ) -> Loss:
        """The loss of logits `[..., B, K]` and int64 labels `[..., B]`, averaged over the batch.

        `teacher_logits` `[..., B, K]` are another network's, or what `self.teacher_logits` returned; `index` `[..., B]`
        numbers the examples of the training set. Logits with the classes on another axis, such as `[B, K, H, W]`, need
        its number, `class_axis`: then every position is an example, and there is one loss. Labels may be distributions
        `[..., B, K]` where the method `takes_mixtures`. A class that is masked, by a logit of −∞, counts where no
        teacher wants it. Raises `InputError` for what cannot be: labels out of range or of another type, shapes that do
        not match, NaN, a forgotten hook. (On a GPU these checks wait for the device; the functions of `losses` do not
        check.)
        """
        batch = Batch(logits, labels, teacher_logits, index)
        if class_axis is not None:
            batch = _by_position(batch, class_axis)
        _check(batch, self, asks=class_axis is None)
        with self._remembering(batch):
            loss = self._loss(batch)
            if not bool(loss.total.isfinite().all()):
                _explain(batch, self)
        return loss

    def unchecked(self, batch: Batch) -> Loss:
        """The same for a training batch known to be sound, with no word on the order of calls.

        A run that is not finite leaves its mates in the stack alone.
        """
        loss = self._loss(batch)
        if self.memory is not None and batch.trains:
            self.remember(batch)
        return loss

    @contextmanager
    def _remembering(self, batch: Batch) -> Iterator[None]:
        """Tell the memory of a loss before and after; one that is refused leaves nothing behind."""
        if self.memory is None:
            yield
            return
        if batch.trains:
            self.memory.before_loss(batch.index)
        with self.memory.drawing(keep=batch.trains):
            yield
        if batch.trains:
            self.remember(batch)

    def _loss(self, batch: Batch) -> Loss:
        classes, soft = batch.logits.shape[-1], self.soft(batch)
        if soft is None:
            return smoothing_loss(batch.logits, batch.labels, hard_weight=1.0, soft_weight=0.0, share=1 / classes)
        return weighted(batch.logits, batch.labels, soft, *self.weights(classes))

    def teacher_logits(self, model: nn.Module, inputs: Tensor) -> Tensor | None:
        """The logits that a method's own memory teaches with on this batch; None where it has no teacher."""
        return None if self.memory is None else self.memory.teach(model, inputs)

    def after_loss(self) -> None:
        """To be called after every loss of a step that has several; does nothing for a method without memory."""
        if self.memory is not None:
            self.memory.after_loss()

    def after_step(self, model: nn.Module) -> None:
        """To be called after every step of the optimizer; does nothing for a method without memory."""
        if self.memory is not None:
            self.memory.after_step(model)

    def after_epoch(self, model: nn.Module, epoch: int) -> None:
        """To be called after every epoch with its number; does nothing for a method without memory."""
        if self.memory is not None:
            self.memory.after_epoch(model, epoch)

    def state_dict(self) -> dict[str, Any]:
        """What the method remembers, for a checkpoint; empty for a method without memory."""
        return {} if self.memory is None else self.memory.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` returned; raises `InputError` for another method's."""
        if self.memory is not None:
            self.memory.load_state_dict(state)
        else:
            require(not state, f"state is not empty, but method {self.name!r} remembers nothing")

    def _given(self, batch: Batch) -> Tensor:
        how = "" if self.memory is None else "; pass objective.teacher_logits(model, inputs)"
        require(batch.teacher_logits is not None, f"teacher_logits is None; method {self.name!r} needs them{how}")
        return batch.teacher_logits

    def _numbered(self, batch: Batch) -> Tensor:
        missing = f"index is None; method {self.name!r} needs the examples' numbers in the training set"
        require(batch.index is not None, missing)
        return batch.index


class Fixed(Objective):
    """An objective whose soft label of an example does not change while one trains."""

    def check(self, classes: int) -> None:
        """Raise `InputError` unless the constants fit K `classes`."""

    def scores(self, batch: Batch) -> Tensor:
        """The teacher's scores, softened: logarithms of $q$ up to a constant `[..., B, K]`."""
        raise TypeError(f"{type(self).__name__} has no scores")

    def soft(self, batch: Batch) -> Tensor:
        return divergence(self.scores(batch), batch.logits, self.student_temperature)

    def fitted(self, batch: Batch) -> Self:
        """With the constants that it takes from its teacher's outputs on the whole training set, if there are any."""
        return self


@dataclass(frozen=True, kw_only=True)
class HandMade(Fixed):
    """An objective whose teacher is one number, its share for the right class."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.teacher  # checks its own constants

    @property
    def teacher(self) -> Teacher:
        """Where the soft label comes from."""
        return Uniform()

    def teacher_share(self, classes: int) -> float:
        """The teacher's probability for the right class among K `classes`."""
        require_classes(classes)
        return self.teacher.share(classes, self.student_temperature)

    def check(self, classes: int) -> None:
        self.teacher_share(classes)

    @property
    def takes_mixtures(self) -> bool:
        """Whether labels may be distributions: where the teacher is uniform."""
        return isinstance(self.teacher, Uniform)

    def scores(self, batch: Batch) -> Tensor:
        classes, dtype = batch.logits.shape[-1], torch.promote_types(batch.logits.dtype, torch.float32)
        if self.takes_mixtures:
            return torch.zeros_like(batch.logits, dtype=dtype)
        return probabilities(Share(self.teacher_share(classes)), batch.labels, classes, dtype=dtype).log()

    def _loss(self, batch: Batch) -> Loss:
        classes = batch.logits.shape[-1]
        hard_weight, soft_weight = self.weights(classes)
        if batch.labels.is_floating_point():
            soft = self.soft(batch) if soft_weight else torch.zeros_like(batch.logits[..., 0])
            return weighted(batch.logits, batch.labels, soft, hard_weight, soft_weight)
        return smoothing_loss(
            batch.logits,
            batch.labels,
            hard_weight=hard_weight,
            soft_weight=soft_weight,
            temperature=self.student_temperature,
            share=self.teacher_share(classes),
        )


def _by_position(batch: Batch, axis: int) -> Batch:
    """The batch with its classes moved from this axis of the logits to the last, and every position an example."""
    axes = batch.logits.ndim if isinstance(batch.logits, Tensor) else 0
    whole = isinstance(axis, int) and not isinstance(axis, bool) and -axes <= axis < axes
    require(whole, f"class_axis is {axis!r}; it must be an axis of the logits, {_kind(batch.logits)}")
    if axis % axes == axes - 1:
        return batch

    def moved(values: Tensor) -> Tensor:
        fits = isinstance(values, Tensor) and values.ndim >= axes
        return values.movedim(axis % axes - axes, -1).flatten(-axes, -2) if fits else values

    labels = batch.labels
    if isinstance(labels, Tensor) and labels.shape == batch.logits.movedim(axis, -1).shape[:-1]:
        labels = labels.flatten()
    return Batch(moved(batch.logits), moved(labels), moved(batch.teacher_logits), batch.index)


def _check(batch: Batch, method: Objective, *, asks: bool) -> None:
    logits, labels, teacher, index = batch
    floating = isinstance(logits, Tensor) and logits.is_floating_point() and logits.ndim >= 2
    require(floating, f"logits are {_kind(logits)}; they must be floating-point numbers [..., B, K]")
    shape, rows, classes = list(logits.shape), list(logits.shape[:-1]), logits.shape[-1]
    require(
        classes >= 2 and logits.numel() > 0, f"logits have shape {shape}; they need 1 example and 2 classes or more"
    )
    if isinstance(labels, Tensor) and labels.is_floating_point() and labels.shape == logits.shape:
        _check_mixtures(labels, method)
    else:
        dense = asks and len(shape) > 2 and list(getattr(labels, "shape", ())) == shape[:1] + shape[2:]
        either = f"logits {shape} may have their classes on axis 1 or on the last; say class_axis=1 or class_axis=-1"
        require(not dense or rows != list(labels.shape) or len(shape) == 3, either)  # three: runs, examples, classes
        _check_numbers("labels", labels, [rows], shape, "; with the classes on axis 1, say class_axis=1" * dense)
        low, high = (int(bound) for bound in labels.aminmax())
        require(low >= 0 and high < classes, f"labels hold {low if low < 0 else high}; they must be 0 to {classes - 1}")
    if index is not None:
        _check_numbers("index", index, [rows, rows[-1:]], shape)
        require(int(index.min()) >= 0, f"index holds {int(index.min())}; the examples' numbers start at 0")
    if teacher is not None:
        floating = isinstance(teacher, Tensor) and teacher.is_floating_point() and teacher.ndim >= 2
        require(floating, f"teacher_logits are {_kind(teacher)}; they must be floating-point numbers {shape}")
        k = teacher.shape[-1]
        require(k == classes, f"teacher_logits have {k} classes; they must have the logits' {classes}")
        fits = teacher.shape[-len(shape) :] == logits.shape and teacher.ndim <= logits.ndim + method.several_teachers
        require(fits, f"teacher_logits have shape {list(teacher.shape)}; it must be the logits' {shape}")
        lowest, _ = _finite("teacher_logits", teacher)
        if lowest == -math.inf and not (method.needs_teacher or method.several_teachers):
            masked = bool(((teacher > -math.inf) | (logits == -math.inf)).all())
            require(masked, f"teacher_logits hold infinite values; method {method.name!r} needs finite numbers")


def _finite(name: str, values: Tensor) -> tuple[float, float]:
    """The lowest and the highest value; raises `InputError` for NaN and ∞, not for the −∞ of a masked class."""
    low, high = (float(bound) for bound in values.detach().aminmax())
    what = "NaN" if math.isnan(high) else "infinite values"
    require(high < math.inf, f"{name} hold {what}; they must be finite numbers (has the network diverged?)")
    return low, high


def _explain(batch: Batch, method: Objective) -> None:
    """Raise `InputError` with the reason why a loss is not finite."""
    low, high = _finite("logits", batch.logits)
    if low == -math.inf:
        wanted = f"logits are −∞ (masked) for a class that the labels or the teacher of method {method.name!r} want"
        raise InputError(
            f"{wanted}; cross-entropy can do without it, and distillation where teacher_logits mask it too"
        )
    if batch.teacher_logits is not None and _finite("teacher_logits", batch.teacher_logits)[0] == -math.inf:
        raise InputError(f"teacher_logits hold infinite values; method {method.name!r} needs finite numbers")
    size = f"logits reach {max(-low, high):.3g}, teacher and temperature {method.student_temperature:g} beside"
    raise InputError(f"{size}: the loss of method {method.name!r} is beyond the range of {batch.logits.dtype}")


def _check_mixtures(labels: Tensor, method: Objective) -> None:
    name = method.name
    way = "λ * objective(logits, first).total + (1 - λ) * objective(logits, second).total"
    require(method.takes_mixtures, f"labels are distributions; method {name!r} needs one class an example: add {way}")
    sums = bool((labels >= 0).all()) and bool(((labels.float().sum(-1) - 1).abs() < 5e-3).all())
    require(sums, "labels hold a row that is no distribution; over the last axis it must be at least 0 and sum to 1")


def _check_numbers(name: str, values: Any, shapes: list[list[int]], logits_shape: list[int], hint: str = "") -> None:
    whole = isinstance(values, Tensor) and values.dtype == torch.int64
    require(whole, f"{name} are {_kind(values)}; they must be int64 {shapes[0]}")
    fits = list(values.shape) in shapes
    require(fits, f"{name} have shape {list(values.shape)}; with logits {logits_shape} it must be {shapes[0]}{hint}")


def _kind(value: object) -> str:
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
