"""Memories: what a method carries from step to step on one training trajectory.

A memory sees the model after every step and every epoch; one that is forgotten is noticed by the next call. Copies of
a model are dictionaries of its tensors, run through the model itself, so that any network can be remembered, a stack
of runs too.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import log_softmax, one_hot

from ._errors import InputError, require
from ._products import padded


class Memory:
    """The order of calls: a loss, `after_step`, and again; `after_epoch` before an example returns."""

    def __init__(self) -> None:
        self.steps = 0
        self.epochs = 0
        self.generators = [torch.Generator().manual_seed(0)]  # for methods that draw; of a stack, one a run
        self._owed = False
        self._last_epoch: int | None = None
        self._seen = torch.zeros(0, dtype=torch.bool)
        self._steps_of_epoch, self._length = 0, None

    def before_loss(self, index: Tensor | None) -> None:
        """Check that a loss may be asked for; raises `InputError` if a hook was forgotten since the last one."""
        require(not self._owed, "after_step(model) was not called since the last loss; call it after every step")
        forgotten = "after_epoch(model, epoch) was not called at the end of the epoch"
        if index is not None:
            if self._seen.shape[:-1] != index.shape[:-1]:  # the first batch: runs of a stack have their own order
                self._seen = torch.zeros(*index.shape[:-1], 0, dtype=torch.bool)
            numbers = index.to(self._seen.device)
            self._seen = _grown(self._seen, numbers)
            again = numbers[self._seen.gather(-1, numbers)]
            if len(again):
                raise InputError(f"example {int(again[0])} returns: {forgotten}")
        longer = self._length is not None and self._steps_of_epoch >= self._length
        require(not longer, f"step {self._steps_of_epoch + 1} of an epoch of {self._length}: {forgotten}")

    def after_loss(self, index: Tensor | None) -> None:
        """Note that a loss was given, and a step is to follow."""
        if index is not None:
            self._seen.scatter_(-1, index.to(self._seen.device), True)
        self._owed = True

    def after_step(self, model: nn.Module) -> None:
        """Note that the optimizer has made its step; raises `InputError` if there was no loss before it."""
        require(self._owed, "after_step(model) was called twice, or without a loss before it")
        self._owed = False
        self.steps += 1
        self._steps_of_epoch += 1

    def after_epoch(self, model: nn.Module, epoch: int) -> None:
        """Note that epoch number `epoch` has ended (counted from 0 or 1); raises `InputError` if it is out of turn."""
        whole = isinstance(epoch, int) and not isinstance(epoch, bool) and epoch >= 0
        require(whole, f"epoch is {epoch!r}; it must be a whole number, 0 or above")
        expected = epoch if self._last_epoch is None else self._last_epoch + 1
        require(epoch == expected, f"epoch is {epoch}; {expected} comes after {self._last_epoch}")
        require(not self._owed, "after_step(model) was not called since the last loss; call it before after_epoch")
        self._last_epoch = epoch
        self.epochs += 1
        self._seen.zero_()
        self._length, self._steps_of_epoch = self._steps_of_epoch or None, 0

    def teach(self, model: nn.Module, inputs: Tensor) -> Tensor | None:
        """The teacher's logits on this batch, or None where the memory holds no teacher."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on, as tensors and plain values, cloned."""
        drawn = {"generators": [generator.get_state() for generator in self.generators]}
        return deepcopy({**vars(self), **drawn})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a `state_dict`; raises `InputError` if it is not one of this method's."""
        missing = sorted(vars(self).keys() ^ state.keys())
        require(not missing, f"state is of another method: {', '.join(missing)} differ")
        for name, value in deepcopy(state).items():
            if name == "generators":
                value = [torch.Generator().set_state(state) for state in value]
            setattr(self, name, value)


class PastCopies(Memory):
    """The newest copies of the model on its own trajectory (MrKD: Wang 2020, Sensors 2021; reconstructed)."""

    def __init__(self) -> None:
        super().__init__()
        self.copies: list[dict[str, Tensor]] = []

    def store(self, model: nn.Module, keep: int) -> None:
        """Add a copy, and let the oldest go where there are more than `keep`."""
        self.copies = [*self.copies, _tensors(model)][-keep:]

    @torch.no_grad()
    def teach(self, model: nn.Module, inputs: Tensor) -> Tensor | None:
        """The copies' logits `[n, ..., B, K]`, oldest first, in evaluation mode; None before the first copy."""
        if not self.copies:
            return None
        self.copies = [_beside(model, copy) for copy in self.copies]
        with _mode(model, training=False):
            return torch.stack([functional_call(model, copy, (inputs,)) for copy in self.copies])


class LearnedEnsemble(PastCopies):
    """Past copies and a fully connected layer that joins their logits (MrKD, Sensors 2021; reconstructed).

    The layer starts as the mean of the copies whenever one arrives, and learns from every training batch by one step
    of normalised gradient descent on its cross-entropy with the labels.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layer: Tensor | None = None

    def store(self, model: nn.Module, keep: int) -> None:
        super().store(model, keep)
        self.layer = None

    @torch.no_grad()
    def join(self, logits: Tensor) -> Tensor:
        """The ensemble's logits `[..., B, K]` from the copies' `[n, ..., B, K]`."""
        copies, classes = logits.shape[0], logits.shape[-1]
        inputs = _inputs(logits)
        if self.layer is None:
            mean = torch.eye(classes).to(inputs).repeat(copies, 1) / copies
            self.layer = mean.repeat(*inputs.shape[:-2], 1, 1)
        self.layer = self.layer.to(inputs)
        return (inputs @ padded(self.layer))[..., :classes]

    @torch.no_grad()
    def learn(self, logits: Tensor, labels: Tensor, rate: float) -> None:
        """One step of the layer on a batch of the copies' logits and labels `[..., B]`."""
        inputs = _inputs(logits)
        error = self.join(logits).softmax(-1) - one_hot(labels, logits.shape[-1])
        size = inputs.square().sum((-1, -2), keepdim=True).clamp_min(1e-12)
        self.layer = self.layer - rate * (inputs.mT @ padded(error))[..., : logits.shape[-1]] / size


class MovingAverage(Memory):
    """An exponential moving average of the weights with $\\lambda_s = \\min(1 - \\frac1{s+1}, \\lambda)$ at step s.

    It starts from the student, or from random weights of its own; it runs in training mode (BatchNorm uses the batch)
    and its buffers are not averaged (Zhang & Sabuncu 2020, `train_smoothing.py`).
    """

    def __init__(self, *, random_start: bool = False) -> None:
        super().__init__()
        self.random_start = random_start
        self.average: dict[str, Tensor] | None = None

    @torch.no_grad()
    def update(self, model: nn.Module, decay: float) -> None:
        """Move the average towards the model's weights; to be called once a step, after `after_step`."""
        self._start(model)
        factor = min(1 - 1 / (self.steps + 1), decay)
        for name, weight in model.named_parameters():
            self.average[name].lerp_(weight, 1 - factor)

    @torch.no_grad()
    def teach(self, model: nn.Module, inputs: Tensor) -> Tensor:
        """The average's logits `[..., B, K]`."""
        self._start(model)
        with _mode(model, training=True):
            return functional_call(model, self.average, (inputs,))

    def _start(self, model: nn.Module) -> None:
        if self.average is None:
            self.average = _tensors(_with_new_weights(model, self.generators) if self.random_start else model)
        self.average = _beside(model, self.average)


class Predictions(Memory):
    """The model's predictions of the last epoch for every training example (PS-KD, Kim 2021)."""

    def __init__(self) -> None:
        super().__init__()
        self.table: Tensor | None = None  # log-probabilities [..., N, K]
        self.known = torch.zeros(0, dtype=torch.bool)

    @torch.no_grad()
    def recall(self, logits: Tensor, labels: Tensor, index: Tensor) -> Tensor:
        """Log-probabilities `[..., B, K]` of the last epoch, of the label where there are none."""
        index, rows = self._places(logits, labels, index)
        known = self.known.gather(-1, index)[..., None]
        return torch.where(known, self.table.gather(-2, rows), one_hot(labels, logits.shape[-1]).to(self.table).log())

    @torch.no_grad()
    def keep(self, logits: Tensor, labels: Tensor, index: Tensor) -> None:
        """Remember this epoch's predictions for the next one."""
        index, rows = self._places(logits, labels, index)
        self.table.scatter_(-2, rows, log_softmax(logits, -1).to(self.table))
        self.known.scatter_(-1, index, True)

    def _places(self, logits: Tensor, labels: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """Where the examples stand; the table grows to hold them."""
        index = index.expand(labels.shape)
        if self.table is None:
            single = torch.promote_types(logits.dtype, torch.float32)
            self.table = logits.new_zeros((*logits.shape[:-2], 0, logits.shape[-1]), dtype=single)
            self.known = torch.zeros(*labels.shape[:-1], 0, dtype=torch.bool, device=logits.device)
        self.table = _grown(self.table.to(logits.device), index, -2)
        self.known = _grown(self.known.to(logits.device), index)
        return index, index[..., None].expand(logits.shape)


def _grown(table: Tensor, index: Tensor, dim: int = -1) -> Tensor:
    """The table with room for the largest number in `index`, at least doubled when it grows."""
    size, needed = table.shape[dim], int(index.max()) + 1
    if needed <= size:
        return table
    shape = list(table.shape)
    shape[dim] = max(2 * size, needed) - size
    return torch.cat([table, table.new_zeros(shape)], dim)


def _inputs(logits: Tensor) -> Tensor:
    """Logits `[n, ..., B, K]` of n networks as one row an example, `[..., B, nK]`."""
    return torch.cat(list(logits), -1).to(torch.promote_types(logits.dtype, torch.float32))


def _beside(model: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors on the model's device, where a checkpoint may not have left them."""
    device = next(model.parameters()).device
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Clones of a model's parameters and buffers by name."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def _with_new_weights(model: nn.Module, generators: Sequence[torch.Generator]) -> nn.Module:
    """The same network with weights drawn anew by its modules' own rule; no other random stream is touched."""
    if hasattr(model, "redrawn"):  # a stack, whose runs draw from streams of their own
        return model.redrawn(generators)
    other = deepcopy(model)
    with torch.random.fork_rng():
        torch.manual_seed(int(torch.randint(2**62, (1,), generator=generators[0])))
        for name, module in other.named_modules():
            draws = hasattr(module, "reset_parameters")
            require(
                draws or not module._parameters,
                f"module {name or 'model'!r} ({type(module).__name__}) has no reset_parameters to start it at random",
            )
            if draws:
                module.reset_parameters()
    return other


@contextmanager
def _mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Training or evaluation mode for a while."""
    before = {module: module.training for module in model.modules()}
    model.train(training)
    try:
        yield
    finally:
        for module, mode in before.items():
            module.training = mode
