"""What all objectives share: checked constants, a checked call, and hooks."""

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, fields
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn

from .. import errors
from .._kernels import at_least_single
from ..errors import InputError, require
from ..losses import Loss, divergence, smoothing_loss, weighted
from ..memory import Memory
from ..teachers import Teacher, Uniform, share_scores

_RULES: dict[str, Callable[[str, Any], None]] = {
    **dict.fromkeys(("alpha", "epsilon", "share", "decay"), errors.require_fraction),
    **dict.fromkeys(("temperature", "teacher_temperature"), errors.require_temperature),
    **dict.fromkeys(("multiplier", "a", "rate"), errors.require_positive),
    **dict.fromkeys(("beta", "gap", "weight", "hard_weight", "soft_weight"), errors.require_not_negative),
    **dict.fromkeys(("copies", "every", "epochs"), errors.require_count),
}


class Batch(NamedTuple):
    """The arguments of an objective; shapes are those of `Objective.__call__`."""

    logits: Tensor
    labels: Tensor
    teacher_logits: Tensor | None = None
    index: Tensor | None = None

    @property
    def trains(self) -> bool:
        """Whether a step of the optimizer is to follow."""
        return torch.is_grad_enabled() and self.logits.requires_grad


@dataclass(frozen=True, kw_only=True)
class Objective:
    """$\\mathcal L = h\\,H(y,p) + s\\,D$ with this method's $h$, $s$ and divergence, usually $D_{KL}(q\\|p_\\tau)$."""

    name: ClassVar[str]
    memory: ClassVar[Memory | None] = None
    takes_teacher: ClassVar[bool] = False  # whether another network may be the teacher
    needs_teacher: ClassVar[bool] = False  # whether one has to be
    several_teachers: ClassVar[bool] = False  # whether `teacher_logits` may be those of n teachers, [n, ..., B, K]
    takes_constants: ClassVar[bool] = False  # whether some come from the teacher's logits on the whole training set
    takes_mixtures: ClassVar[bool] = False  # whether labels may be distributions: the teacher does not depend on them
    has_closed_form: ClassVar[bool] = False  # whether a stack may train it by the gradient from fixed targets

    def __post_init__(self) -> None:
        errors.hold_plain(self)
        for field in fields(self):
            if field.name in _RULES:
                _RULES[field.name](field.name, getattr(self, field.name))

    @property
    def student_temperature(self) -> float:
        """τ, the temperature of the student in the divergence."""
        return getattr(self, "temperature", 1.0)

    def weights(self, classes: int) -> tuple[float, float]:
        """$h$ and $s$: the weights of the cross-entropy with the labels, and of the divergence, for K `classes`.

        $1-\\alpha$ and $\\alpha\\tau^2$ with the student's τ, unless a method has others.
        """
        return 1 - self.alpha, self.alpha * self.student_temperature**2

    def soft(self, batch: Batch) -> Tensor | None:
        """The divergence of every example `[..., B]`; None while there is no teacher yet: plain cross-entropy."""
        raise TypeError(f"{type(self).__name__} has no divergence")

    def remember(self, batch: Batch) -> None:
        """Remember a training batch after its loss was computed; does nothing for a method without memory."""
        if self.memory is not None:
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
        numbers the examples of the training set. With the classes on another axis, as in `[B, K, H, W]`, give its
        number, `class_axis`: each position is then an example, and there is one loss. Labels may be distributions
        `[..., B, K]` if the method `takes_mixtures`. A logit of −∞ masks a class; the loss is finite if the teacher's
        probability of it is zero. Raises `InputError` for labels out of range or of another type, shapes that do not
        match, NaN, or a hook that was not called. (On a GPU these checks synchronise; the functions of `losses` do not
        check.)
        """
        batch = Batch(logits, labels, teacher_logits, index)
        if class_axis is not None:
            batch = _by_position(batch, class_axis)
        _check(batch, self, axis_is_known=class_axis is not None)
        if self.memory is not None and batch.trains:
            self.memory.before_loss(batch.index)
        with nullcontext() if self.memory is None else self.memory.drawing(keep=batch.trains):
            loss = self._loss(batch)
            if not bool(loss.total.isfinite().all()):
                _explain(batch, self)
        if batch.trains:
            self.remember(batch)
        return loss

    def unchecked(self, batch: Batch) -> Loss:
        """The loss of a batch that is known to be valid, without checks; also none of the order of calls.

        A run that is not finite does not affect the other runs of the stack.
        """
        loss = self._loss(batch)
        if batch.trains:
            self.remember(batch)
        return loss

    def _loss(self, batch: Batch) -> Loss:
        classes, soft = batch.logits.shape[-1], self.soft(batch)
        if soft is None:
            return smoothing_loss(batch.logits, batch.labels, hard_weight=1.0, soft_weight=0.0, share=1 / classes)
        shape, right = list(soft.shape), list(batch.logits.shape[:-1])
        require(
            shape == right, f"soft of method {self.name!r} has shape {shape}; it must be one of each example, {right}"
        )
        return weighted(batch.logits, batch.labels, soft, *self.weights(classes))

    def teacher_logits(self, model: nn.Module, inputs: Tensor) -> Tensor | None:
        """The logits of the teacher that a method remembers itself, on this batch; None if it has no teacher."""
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
        return {} if self.memory is None else {"method": self.name, **self.memory.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from what `state_dict` returned; raises `InputError` for another method's."""
        own = dict(state)
        before = own.pop("method", self.name)
        require(before == self.name, f"state is of method {before!r}, and this is {self.name!r}")
        if self.memory is not None:
            self.memory.load_state_dict(own)
        else:
            require(not own, f"state is not empty, but method {self.name!r} remembers nothing")

    def required_teacher(self, batch: Batch) -> Tensor:
        """The teacher's logits of a batch; raises `InputError` if it has none."""
        how = "" if self.memory is None else "; pass objective.teacher_logits(model, inputs)"
        require(batch.teacher_logits is not None, f"teacher_logits is None; method {self.name!r} needs them{how}")
        return batch.teacher_logits

    def required_index(self, batch: Batch) -> Tensor:
        """The numbers of a batch's examples in the training set; raises `InputError` if it has none."""
        missing = f"index is None; method {self.name!r} needs the examples' numbers in the training set"
        require(batch.index is not None, missing)
        return batch.index


class Fixed(Objective):
    """An objective whose soft label of an example does not change during training."""

    @property
    def has_closed_form(self) -> bool:
        """Whether its divergence is that of its scores alone."""
        return type(self).soft is Fixed.soft

    def check(self, classes: int) -> None:
        """Raise `InputError` unless the constants fit K `classes`."""

    def scores(self, batch: Batch) -> Tensor:
        """The teacher's scores, softened: logarithms of $q$ up to a constant `[..., B, K]`."""
        raise TypeError(f"{type(self).__name__} has no scores")

    def soft(self, batch: Batch) -> Tensor:
        return divergence(self.scores(batch), batch.logits, self.student_temperature)

    def fitted(self, batch: Batch) -> Self:
        """The objective with those constants that its teacher's outputs on the whole training set determine."""
        return self


class HandMade(Fixed):
    """An objective with a hand-made teacher, given by its share of the right class."""

    teacher: ClassVar[Teacher] = Uniform()  # or a property, where it depends on constants

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.teacher  # checks its own constants

    def teacher_share(self, classes: int) -> float:
        """The teacher's probability of the right class among K `classes`."""
        errors.require_classes(classes)
        return self.teacher.share(classes, self.student_temperature)

    def check(self, classes: int) -> None:
        self.teacher_share(classes)

    @property
    def takes_mixtures(self) -> bool:
        """Whether labels may be distributions: if the teacher is uniform."""
        return isinstance(self.teacher, Uniform)

    def scores(self, batch: Batch) -> Tensor:
        logits, classes = at_least_single(batch.logits), batch.logits.shape[-1]
        if self.takes_mixtures:
            return torch.zeros_like(logits)
        return share_scores(torch.full_like(logits[..., 0], self.teacher_share(classes)), batch.labels, classes)

    def _loss(self, batch: Batch) -> Loss:
        if batch.labels.is_floating_point() or not self.has_closed_form:
            return super()._loss(batch)
        classes = batch.logits.shape[-1]
        weights = dict(zip(("hard_weight", "soft_weight"), self.weights(classes), strict=True))
        share, tau = self.teacher_share(classes), self.student_temperature
        return smoothing_loss(batch.logits, batch.labels, **weights, share=share, temperature=tau)


def _by_position(batch: Batch, axis: int) -> Batch:
    """The batch with the classes flattened from this axis of the logits to the last; each position is an example."""
    axes = batch.logits.ndim if isinstance(batch.logits, Tensor) else 0
    right = f"it must be an axis of the logits, {_kind(batch.logits)}"
    errors.require_number("class_axis", axis, int, lambda a: -axes <= a < axes, right)
    if axis % axes == axes - 1:
        return batch

    def flattened(values: Tensor) -> Tensor:
        fits = isinstance(values, Tensor) and values.ndim >= axes
        return values.movedim(axis % axes - axes, -1).flatten(-axes, -2) if fits else values

    labels = batch.labels
    if isinstance(labels, Tensor) and labels.shape == batch.logits.movedim(axis, -1).shape[:-1]:
        labels = labels.flatten()
    return Batch(flattened(batch.logits), flattened(labels), flattened(batch.teacher_logits), batch.index)


def _check(batch: Batch, method: Objective, *, axis_is_known: bool) -> None:
    """Raise `InputError` for a batch that has no loss."""
    logits, labels, teacher, index = batch
    _require_floating("logits", logits, "[..., B, K]")
    shape, rows, classes = list(logits.shape), list(logits.shape[:-1]), logits.shape[-1]
    enough = classes >= 2 and logits.numel() > 0
    require(enough, f"logits have shape {shape}; they need 1 example and 2 classes or more")
    if isinstance(labels, Tensor) and labels.is_floating_point() and labels.shape == logits.shape:
        way = "λ * objective(logits, first).total + (1 - λ) * objective(logits, second).total"
        one = f"labels are distributions; method {method.name!r} needs one class an example: add {way}"
        require(method.takes_mixtures, one)
        sums = bool((labels >= 0).all()) and bool(((labels.float().sum(-1) - 1).abs() < 5e-3).all())
        right = "over the last axis it must be at least 0 and sum to 1"
        require(sums, f"labels hold a row that is no distribution; {right}")
    else:
        labels_shape = list(getattr(labels, "shape", ()))
        dense = not axis_is_known and len(shape) > 2 and labels_shape == shape[:1] + shape[2:]
        either = f"logits {shape} may have their classes on axis 1 or on the last; say class_axis=1 or class_axis=-1"
        require(not dense or rows != labels_shape or len(shape) == 3, either)  # three: runs, examples, classes
        _require_whole("labels", labels, [rows], shape, "; with the classes on axis 1, say class_axis=1" * dense)
        low, high = (int(bound) for bound in labels.aminmax())
        hint = "; leave padding out: objective(logits[kept], labels[kept]), kept = labels != -100" * (low == -100)
        bad = low if low < 0 else high
        require(low >= 0 and high < classes, f"labels hold {bad}; they must be 0 to {classes - 1}{hint}")
    if index is not None:
        _require_whole("index", index, [rows, rows[-1:]], shape)
        require(int(index.min()) >= 0, f"index holds {int(index.min())}; the examples' numbers start at 0")
    if teacher is not None:
        _check_teacher(teacher, logits, method)


def _check_teacher(teacher: Tensor, logits: Tensor, method: Objective) -> None:
    shape, classes = list(logits.shape), logits.shape[-1]
    _require_floating("teacher_logits", teacher, shape)
    k = teacher.shape[-1]
    require(k == classes, f"teacher_logits have {k} classes; they must have the logits' {classes}")
    fits = teacher.shape[-len(shape) :] == logits.shape and teacher.ndim <= logits.ndim + method.several_teachers
    require(fits, f"teacher_logits have shape {list(teacher.shape)}; it must be the logits' {shape}")
    lowest, _ = _bounds("teacher_logits", teacher)
    if lowest == -math.inf and not (method.needs_teacher or method.several_teachers):
        masked = bool(((teacher > -math.inf) | (logits == -math.inf)).all())
        require(masked, f"teacher_logits hold infinite values; method {method.name!r} needs finite numbers")


def _bounds(name: str, values: Tensor) -> tuple[float, float]:
    """The lowest and the highest value; raises `InputError` for NaN and ∞, not for the −∞ of a masked class."""
    low, high = (float(bound) for bound in values.detach().aminmax())
    what = "NaN" if math.isnan(high) else "infinite values"
    require(high < math.inf, f"{name} hold {what}; they must be finite numbers (has the network diverged?)")
    return low, high


def _explain(batch: Batch, method: Objective) -> None:
    """Raise `InputError` with the reason why a loss is not finite."""
    low, high = _bounds("logits", batch.logits)
    wanted = f"logits are −∞ (masked) for a class that the labels or the teacher of method {method.name!r} want"
    others = "cross-entropy can do without it, and distillation where teacher_logits mask it too"
    require(low > -math.inf, f"{wanted}; {others}")
    lowest = 0 if batch.teacher_logits is None else _bounds("teacher_logits", batch.teacher_logits)[0]
    require(lowest > -math.inf, f"teacher_logits hold infinite values; method {method.name!r} needs finite numbers")
    size = f"logits reach {max(-low, high):.3g}, teacher and temperature {method.student_temperature:g} beside"
    raise InputError(f"{size}: the loss of method {method.name!r} is beyond the range of {batch.logits.dtype}")


def _require_floating(name: str, values: Any, right: object) -> None:
    floating = isinstance(values, Tensor) and values.is_floating_point() and values.ndim >= 2
    require(floating, f"{name} are {_kind(values)}; they must be floating-point numbers {right}")


def _require_whole(name: str, values: Any, shapes: list[list[int]], logits_shape: list[int], hint: str = "") -> None:
    whole = isinstance(values, Tensor) and values.dtype == torch.int64
    require(whole, f"{name} are {_kind(values)}; they must be int64 {shapes[0]}")
    fits = list(values.shape) in shapes
    require(fits, f"{name} have shape {list(values.shape)}; with logits {logits_shape} it must be {shapes[0]}{hint}")


def _kind(value: object) -> str:
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
