"""What all objectives share: constants that are checked, a call that is checked, hooks."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn

from .._errors import require, require_classes, require_count, require_fraction, require_not_negative, require_positive
from ..losses import Loss, divergence, smoothing_loss, weighted
from ..memory import Memory
from ..teachers import Share, Teacher, Uniform, probabilities

_RULES: dict[str, Callable[[str, Any], None]] = {
    **dict.fromkeys(("alpha", "epsilon", "share", "decay"), require_fraction),
    **dict.fromkeys(("temperature", "teacher_temperature", "multiplier", "a", "rate"), require_positive),
    **dict.fromkeys(("beta", "weight", "hard_weight", "soft_weight"), require_not_negative),
    **dict.fromkeys(("copies", "every", "epochs"), require_count),
}


class Batch(NamedTuple):
    """What an objective is called with: `[..., B, K]`, `[..., B]`, `[..., B, K]` or None, `[..., B]` or None."""

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

    def __post_init__(self) -> None:
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
        self, logits: Tensor, labels: Tensor, teacher_logits: Tensor | None = None, index: Tensor | None = None
    ) -> Loss:
        """The loss of logits `[..., B, K]` and int64 labels `[..., B]`, averaged over the batch.

        `teacher_logits` `[..., B, K]` are another network's, or what `self.teacher_logits` returned; `index` `[..., B]`
        numbers the examples of the training set. Raises `InputError` for what cannot be: labels out of range or of
        another type, shapes that do not match, NaN, a forgotten hook. (On a GPU these checks wait for the device; the
        functions of `losses` do not check.)
        """
        batch = Batch(logits, labels, teacher_logits, index)
        _check(batch, self.several_teachers)
        if self.memory is None:
            return self._finite_loss(batch)
        if batch.trains:
            self.memory.before_loss(index)
        with self.memory.drawing(keep=batch.trains):
            loss = self._finite_loss(batch)
        if batch.trains:
            self.remember(batch)
        return loss

    def unchecked(self, batch: Batch) -> Loss:
        """The same for a training batch known to be sound, with no word on the order of calls.

        A run that is not finite leaves its mates in the stack alone.
        """
        loss = self._loss(batch)
        if self.memory is not None and batch.trains:
            self.remember(batch)
        return loss

    def _finite_loss(self, batch: Batch) -> Loss:
        loss = self._loss(batch)
        if not bool(loss.total.isfinite().all()):
            for name, values in (("logits", batch.logits), ("teacher_logits", batch.teacher_logits)):
                if values is not None and not bool(values.isfinite().all()):
                    what = "NaN" if bool(values.isnan().any()) else "infinite values"
                    require(False, f"{name} hold {what}; they must be finite numbers (has the network diverged?)")
        return loss

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

    def scores(self, batch: Batch) -> Tensor:
        classes, dtype = batch.logits.shape[-1], batch.logits.dtype
        return probabilities(Share(self.teacher_share(classes)), batch.labels, classes, dtype=dtype).log()

    def _loss(self, batch: Batch) -> Loss:
        classes = batch.logits.shape[-1]
        hard_weight, soft_weight = self.weights(classes)
        return smoothing_loss(
            batch.logits,
            batch.labels,
            hard_weight=hard_weight,
            soft_weight=soft_weight,
            temperature=self.student_temperature,
            share=self.teacher_share(classes),
        )


def _check(batch: Batch, several_teachers: bool) -> None:
    logits, labels, teacher, index = batch
    floating = isinstance(logits, Tensor) and logits.is_floating_point() and logits.ndim >= 2
    require(floating, f"logits are {_kind(logits)}; they must be floating-point numbers [..., B, K]")
    shape, rows, classes = list(logits.shape), list(logits.shape[:-1]), logits.shape[-1]
    require(
        classes >= 2 and logits.numel() > 0, f"logits have shape {shape}; they need 1 example and 2 classes or more"
    )
    _check_numbers("labels", labels, [rows], shape)
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
        fits = teacher.shape[-len(shape) :] == logits.shape and teacher.ndim <= logits.ndim + several_teachers
        require(fits, f"teacher_logits have shape {list(teacher.shape)}; it must be the logits' {shape}")


def _check_numbers(name: str, values: Any, shapes: list[list[int]], logits_shape: list[int]) -> None:
    whole = isinstance(values, Tensor) and values.dtype == torch.int64
    require(whole, f"{name} are {_kind(values)}; they must be int64 {shapes[0]}")
    fits = list(values.shape) in shapes
    require(fits, f"{name} have shape {list(values.shape)}; with logits {logits_shape} it must be {shapes[0]}")


def _kind(value: object) -> str:
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
