"""Memories: what a method keeps from step to step of one training.

Copies of a model are dictionaries of its tensors, which the model itself computes with: any network can be remembered.
"""

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import log_softmax, pad
from torch.nn.parallel import DataParallel, DistributedDataParallel

from ._kernels import at_least_single
from ._products import padded
from .errors import require, require_number


class Memory:
    """Call `after_step` after each optimizer step and `after_epoch` after each epoch; calls out of order raise.

    Where one step has several losses, call `after_loss` after each of them. `generators` draw random numbers, one for
    each run of a stack; None is torch's own stream, which `torch.manual_seed` sets.
    """

    def __init__(self) -> None:
        self.steps: int | Tensor = 0  # a tensor [] where steps are recorded and replayed, for each replay counts
        self.epochs = 0
        self.generators: list[torch.Generator] | None = None
        self._last_call: Literal["loss", "after_loss", "after_step"] = "after_step"
        self._last_epoch: int | None = None
        self._shown: dict[int, int] = {}  # in the first epoch: the step that last showed an example, by its number

    def before_loss(self, index: Tensor | None) -> None:
        """Raise `InputError` if a hook was left out since the last loss."""
        missing = "after_step(model) was not called since the last loss; call it after every step of the optimizer"
        require(self._last_call != "loss", f"{missing}, and after_loss() after each loss of a step that has several")
        if index is not None and self._last_epoch is None:  # later, the epochs' numbers show one that was left out
            numbers = index.reshape(-1, index.shape[-1])[0].tolist()  # the runs of a stack are in the same epoch
            again = all(self._shown.get(number, self.steps) < self.steps for number in numbers)
            missing = "after_epoch(model, epoch) was not called yet; call it at the end of every epoch"
            require(not again, f"every example of this batch returns, but {missing}")
            self._shown.update(dict.fromkeys(numbers, self.steps))

    def count_loss(self) -> None:
        """Note that a loss was computed, which a step has to follow."""
        self._last_call = "loss"

    def after_loss(self) -> None:
        """Note that another loss may follow before the step; raises `InputError` without a loss before it."""
        require(self._last_call == "loss", "after_loss() was called twice, or without a loss before it")
        self._last_call = "after_loss"

    def after_step(self, model: nn.Module) -> None:
        """Note that the optimizer has made its step; raises `InputError` without a loss before it."""
        require(self._last_call != "after_step", "after_step(model) was called twice, or without a loss before it")
        self._last_call = "after_step"
        self.steps += 1

    def after_epoch(self, model: nn.Module, epoch: int) -> None:
        """Note that epoch number `epoch` has ended (counted from 0 or 1); raises `InputError` if it is out of turn."""
        require_number("epoch", epoch, int, lambda n: n >= 0, "it must be a whole number, 0 or above")
        expected = epoch if self._last_epoch is None else self._last_epoch + 1
        require(epoch == expected, f"epoch is {epoch}; {expected} comes after {self._last_epoch}")
        missing = "after_step(model) was not called since the last loss"
        require(self._last_call == "after_step", f"{missing}; make the step and call it before after_epoch")
        self._last_epoch = int(epoch)
        self.epochs += 1
        self._shown = {}

    def teach(self, model: nn.Module, inputs: Tensor) -> Tensor | None:
        """The teacher's logits on this batch, or None if the memory holds no teacher."""
        return None

    @property
    def streams(self) -> list[torch.Generator]:
        """The generators, or torch's own."""
        return [torch.default_generator] if self.generators is None else self.generators

    @contextmanager
    def drawing(self, *, keep: bool) -> Iterator[None]:
        """Reset the generators at the end, unless they are to `keep` their new states and nothing was raised."""
        with ExitStack() as resets:
            for generator in self.streams:
                resets.callback(generator.set_state, generator.get_state())
            yield
            if keep:
                resets.pop_all()

    def state_dict(self) -> dict[str, Any]:
        """Cloned tensors and plain values from which training resumes; the state of torch's own stream is not in it."""
        states = self.generators and [generator.get_state() for generator in self.generators]
        return deepcopy({**vars(self), "generators": states})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from a `state_dict`; raises `InputError` for another method's."""
        missing = sorted(vars(self).keys() ^ state.keys())
        require(not missing, f"state is of another method: {', '.join(missing)} differ")
        for name, value in deepcopy(state).items():
            if name == "generators" and value:
                own = self.generators or [torch.Generator() for _ in value]
                value = [generator.set_state(state) for generator, state in zip(own, value, strict=True)]
            setattr(self, name, value)


class PastCopies(Memory):
    """The newest copies of the model on its own trajectory (MrKD: Wang 2020, Sensors 2021; reconstructed)."""

    def __init__(self) -> None:
        super().__init__()
        self.copies: list[dict[str, Tensor]] = []

    def store(self, model: nn.Module, keep: int) -> None:
        """Add a copy, and drop the oldest ones beyond the newest `keep`."""
        copy = {name: tensor.detach().clone() for name, tensor in _tensors(_unwrapped(model)).items()}
        self.copies = [*self.copies, copy][-keep:]

    @torch.no_grad()
    def teach(self, model: nn.Module, inputs: Tensor) -> Tensor | None:
        """The copies' logits `[n, ..., B, K]`, oldest first, in evaluation mode; None before the first copy."""
        if not self.copies:
            return None
        model = _unwrapped(model)
        self.copies = [_on_device_of(model, copy) for copy in self.copies]
        return torch.stack([_logits(model, copy, inputs, training=False) for copy in self.copies])


class LearnedEnsemble(PastCopies):
    """Past copies and a fully connected layer that combines their logits (MrKD, Sensors 2021; reconstructed).

    The layer starts as the mean of the copies whenever one is added, and learns from the `batches` of each training
    step, logits and labels, by one step of normalised gradient descent on its cross-entropy with the labels.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layer: Tensor | None = None
        self.batches: list[tuple[Tensor, Tensor]] = []

    def store(self, model: nn.Module, keep: int) -> None:
        super().store(model, keep)
        self.layer = None

    @torch.inference_mode(False)  # later the layer is changed in place, outside of inference mode
    @torch.no_grad()
    def join(self, logits: Tensor) -> Tensor:
        """The ensemble's logits `[..., B, K]` from the copies' `[n, ..., B, K]`, −∞ where all of them are."""
        copies, classes = logits.shape[0], logits.shape[-1]
        inputs = _rows(logits)
        if self.layer is None:
            mean = torch.eye(classes, dtype=inputs.dtype, device=inputs.device).repeat(copies, 1) / copies
            self.layer = mean.repeat(*inputs.shape[:-2], 1, 1)
        self.layer = self.layer.to(inputs)
        with torch.autocast(inputs.device.type, enabled=False):
            joined = (inputs @ padded(self.layer))[..., :classes]
        return joined.masked_fill((logits == -torch.inf).all(0), -torch.inf)

    @torch.no_grad()
    def learn(self, rate: float) -> None:
        """One step of the layer on the batches since the last step, the copies' logits and the labels `[..., B]`."""
        if not self.batches:
            return
        logits, labels = zip(*self.batches, strict=True)
        logits, labels = torch.cat(logits, -2), torch.cat(labels, -1)
        inputs, classes = _rows(logits), self.layer.shape[-1]
        error = self.join(logits).softmax(-1) - _one_hot(labels, classes, inputs.dtype)
        with torch.autocast(inputs.device.type, enabled=False):
            size = inputs.square().sum((-1, -2), keepdim=True).clamp_min(1e-12)
            self.layer -= rate * (inputs.mT @ padded(error))[..., :classes] / size
        self.batches = []


def _rows(logits: Tensor) -> Tensor:
    """The copies' logits `[n, ..., B, K]` as one row an example, `[..., B, nK]`; 0 for a class that a copy lacks."""
    return at_least_single(torch.cat(tuple(logits.masked_fill(logits == -torch.inf, 0)), -1))


class MovingAverage(Memory):
    """An exponential moving average of the weights with $\\lambda_s = \\min(1 - \\frac1{s+1}, \\lambda)$ at step s.

    It starts from the student, or from random weights of its own. It is kept in single precision at least and runs in
    training mode (BatchNorm uses the batch); its buffers are not averaged (Zhang & Sabuncu 2020,
    `train_smoothing.py`).
    """

    def __init__(self, *, random_start: bool = False) -> None:
        super().__init__()
        self.random_start = random_start
        self.average: dict[str, Tensor] | None = None

    @torch.inference_mode(False)  # later it is changed in place, outside of inference mode
    @torch.no_grad()
    def start(self, model: nn.Module) -> None:
        """Start from the weights of `model`, a network like the student."""
        model = _unwrapped(model)
        weights = {name: at_least_single(weight) for name, weight in model.named_parameters()}
        self.average = {name: tensor.detach().clone() for name, tensor in {**_tensors(model), **weights}.items()}

    @torch.no_grad()
    def update(self, model: nn.Module, decay: float) -> None:
        """Move the average towards the model's weights; to be called once a step, after `after_step`."""
        model = self._started(model)
        step = self._step(decay)
        for name, weight in model.named_parameters():
            self.average[name].lerp_(at_least_single(weight), step)

    def _step(self, decay: float) -> float | Tensor:
        """$1 - \\lambda_s$, on the device where steps are counted there."""
        if isinstance(self.steps, Tensor):
            return (1 - (1 - 1 / (self.steps + 1)).clamp_max(decay)).float()
        return 1 - min(1 - 1 / (self.steps + 1), decay)

    @torch.no_grad()
    def teach(self, model: nn.Module, inputs: Tensor) -> Tensor:
        """The average's logits `[..., B, K]`."""
        return _logits(self._started(model), self.average, inputs, training=True)

    def _started(self, model: nn.Module) -> nn.Module:
        """Start the average if that was not done yet; returns the model without a wrapper."""
        model = _unwrapped(model)
        if self.average is None:
            self.start(_reinitialized(model, self.streams) if self.random_start else model)
        self.average = _on_device_of(model, self.average)
        return model


class Predictions(Memory):
    """The model's last prediction of every training example (PS-KD, Kim 2021).

    The predictions of a step enter the table when the step is made; of an example's predictions from several batches,
    the first.
    """

    def __init__(self) -> None:
        super().__init__()
        self.table: Tensor | None = None  # log-probabilities [..., N, K], NaN where there are none yet
        self._predicted: list[tuple[Tensor, Tensor]] = []
        self._examples: int | None = None  # in the training set, where that is known
        self._count = 0  # known examples at the end of the last epoch

    def expect(self, examples: int) -> None:
        """Have room for so many examples at once, so that no step looks at their numbers."""
        self._examples = examples

    @torch.no_grad()
    def recall(self, logits: Tensor, labels: Tensor, index: Tensor) -> Tensor:
        """The log-probabilities `[..., B, K]` last predicted; those of the bare label if there are none."""
        self._make_room(logits, self._examples or int(index.max()) + 1)
        past = self.table.gather(-2, index[..., None].expand(logits.shape))
        return torch.where(past.isnan(), _one_hot(labels, logits.shape[-1], past.dtype).log(), past)

    @torch.no_grad()
    def keep(self, logits: Tensor, index: Tensor) -> None:
        """Hold these predictions, whose examples were recalled before, until the step is made."""
        predicted = log_softmax(logits.to(self.table.dtype), -1)
        self._predicted.append((index[..., None].expand(logits.shape), predicted))

    @torch.no_grad()
    def after_step(self, model: nn.Module) -> None:
        super().after_step(model)
        for rows, predicted in reversed(self._predicted):
            self.table.scatter_(-2, rows, predicted)
        self._predicted = []

    def after_epoch(self, model: nn.Module, epoch: int) -> None:
        """Warns if an epoch after the first showed examples that had no prediction yet."""
        super().after_epoch(model, epoch)
        known = 0 if self.table is None else int((~self.table[..., 0].isnan()).sum())
        before, self._count = self._count, known
        if 0 < before < known:
            new = f"epoch {epoch} showed {known - before} examples for the first time"
            warnings.warn(f"{new}; having no prediction of them, PS-KD taught them their bare labels", stacklevel=3)

    @torch.inference_mode(False)
    def _make_room(self, logits: Tensor, count: int) -> None:
        """Let the table hold that many examples, at least twice as many as before when it grows."""
        if self.table is None:
            self.table = at_least_single(logits.new_empty((*logits.shape[:-2], 0, logits.shape[-1])))
        self.table, size = self.table.to(logits.device), self.table.shape[-2]
        if count > size:
            self.table = pad(self.table, (0, 0, 0, max(size, count - size)), value=math.nan)


def _one_hot(labels: Tensor, classes: int, dtype: torch.dtype) -> Tensor:
    """The labels' distributions `[..., B, K]`; torch's own function waits for the device."""
    return (labels[..., None] == torch.arange(classes, device=labels.device)).to(dtype)


def _unwrapped(model: nn.Module) -> nn.Module:
    """The model without a wrapper that distributes it over devices."""
    return model.module if isinstance(model, DataParallel | DistributedDataParallel) else model


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """A model's parameters and buffers, each once: under the first name of those that share it."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


@torch.inference_mode(False)
def _on_device_of(model: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, each on the device of the model's own, which may differ after a checkpoint."""
    own = _tensors(model)
    return {name: tensor.to(own[name].device) for name, tensor in tensors.items()}


def _logits(model: nn.Module, tensors: dict[str, Tensor], inputs: Tensor, *, training: bool) -> Tensor:
    """The logits of the model with these tensors instead of its own, in its own precision and in this mode."""
    names = {id(tensor): name for name, tensor in _tensors(model).items()}
    replaced, options = {}, {"recurse": False, "remove_duplicate": False}
    for path, module in model.named_modules():  # a shared module once: swapped twice, it would not get its own back
        for name, own in [*module.named_parameters(path, **options), *module.named_buffers(path, **options)]:
            replaced[name] = tensors[names[id(own)]].to(own.dtype)
    modes = {module: module.training for module in model.modules()}
    model.train(training)
    try:
        return functional_call(model, replaced, (inputs,), tie_weights=False)
    finally:
        for module, mode in modes.items():
            module.training = mode


def _reinitialized(model: nn.Module, generators: Sequence[torch.Generator]) -> nn.Module:
    """The same network with new weights by its modules' own rule; no other random stream changes."""
    if hasattr(model, "reinitialized"):  # a stack, whose runs draw from streams of their own
        return model.reinitialized(generators)
    other = deepcopy(model)
    with torch.random.fork_rng():
        drawn = torch.randint(2**62, (1,), generator=generators[0], device=generators[0].device)
        torch.manual_seed(int(drawn))
        for name, module in other.named_modules():
            draws = hasattr(module, "reset_parameters")
            known = draws or hasattr(module, "_reset_parameters") or not module._parameters
            fact = f"module {name or 'model'!r} ({type(module).__name__}) has no reset_parameters to start it at random"
            right = "give the average its start yourself: objective.memory.start(network), a new one like the model"
            require(known, f"{fact}; {right}")
            if draws:
                module.reset_parameters()
        for module in reversed(list(other.modules())):  # torch's attention sets weights of its parts, which come first
            if hasattr(module, "_reset_parameters"):
                module._reset_parameters()
    return other
