"""What trains one network, of one run or of a stack: a step of its objective's loss."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from .capture import Captured, forward_of
from .examples import Data, Examples, OwnExamples, on_device
from .losses import gradient_from_targets, gradient_targets
from .memory import PastCopies, Predictions
from .objectives import Batch, Fixed
from .optimizers import StackedSGD, fused
from .run import Run, stream


class Learner:
    """What trains one network, of one run or of a stack: objective and optimizer.

    A stack has two fast paths, for soft labels that are fixed and for past copies.
    """

    def __init__(self, network: nn.Module, runs: Sequence[Run], data: Data) -> None:
        self.network, self.data, self._size = network, data, runs[0].schedule.batch_size
        self.objective = replace(runs[0].objective)  # with a memory of its own
        self._is_stack, self._constants, self._soft = isinstance(data, OwnExamples), None, None
        if self._is_stack and self.objective.has_closed_form:
            self._constants, self._soft = _closed_form(runs, data)
        elif self._is_stack:
            self._soft = data.training_teacher_logits() if self.objective.takes_teacher else None
        elif isinstance(self.objective, Fixed):
            self.objective = data.fitted(self.objective)
        self.memory = self.objective.memory
        if self.memory is not None:
            draws = (stream(run.seed, run.role, "draws") for run in runs)
            self.memory.generators = [on_device(generator, data.device) for generator in draws]
        if isinstance(self.memory, Predictions):
            self.memory.expect(data.labels.shape[-1])
        alone = runs[0].network.stack_size == 1 and len(runs) == 1  # torch's fused kernel has one rate for all runs
        self.optimizer = fused(network, runs[0]) if alone else StackedSGD(network, runs)
        self._forward = forward_of(network, data.recorded_on, runs[0].train * runs[0].schedule.last)
        self._begin()

    def _begin(self) -> None:
        """Let steps be recorded, from the state as it is."""
        memory, device = self.memory, self.data.recorded_on
        self._captured = Captured(self._step, device, [] if memory is None else memory.generators)
        if self._captured.records and memory is not None:
            memory.steps = torch.as_tensor(memory.steps, dtype=torch.float64, device=device)

    @property
    def is_compiled(self) -> bool:
        """Whether the network is compiled for training."""
        return self._forward is not self.network

    def load_state_dict(self, optimizer: dict[str, Any], memory: dict[str, Any]) -> None:
        """Go on from the states of optimizer and memory."""
        self.optimizer.load_state_dict(optimizer)
        self.objective.load_state_dict(memory)
        self._begin()

    def soft(self) -> Tensor | None:
        """Of a stack, what the whole training set has in this epoch, or None.

        Targets of the gradient `[S, N, K]`, or the past copies' logits `[S, N, n, K]`, computed once a copy rather
        than once a step.
        """
        memory = self.memory
        remembers = self._is_stack and isinstance(memory, PastCopies)
        if remembers and (self._soft is None or memory.epochs % self.objective.every == 0):
            copies = self.objective.teacher_logits(self.network, self.data.split.train_inputs)
            self._soft = None if copies is None else copies.movedim(0, -2).contiguous()
        return self._soft

    def step(self, batch: Examples, rate: float | Tensor) -> Tensor:
        """One step with `rate` times the learning rate; returns a number a run that is finite unless it diverged.

        It is valid after `join`, until the next step.
        """
        return self._captured(*batch, rate, version=0 if self.memory is None else self.memory.epochs)

    def join(self) -> None:
        """Let what follows wait for the step."""
        self._captured.join()

    def _step(self, *given: Any) -> Tensor:
        *batch, rate = given
        finite_probe = self.differentiate(Examples(*batch))
        self.optimizer.step(rate)
        self.objective.after_step(self.network)
        return finite_probe

    def differentiate(self, batch: Examples) -> Tensor:
        """Set the gradients of the objective's loss."""
        soft = batch.soft
        if self._constants is not None:  # the gradient in closed form instead of the loss; tests hold them equal
            gradient = self.network.backpropagate(
                batch.inputs, lambda logits: gradient_from_targets(logits, soft, *self._constants)
            )
            return gradient[:, 0, 0]
        forward = self._forward if len(batch.labels) == self._size else self.network  # compiled for one size
        with self.data.autocast():
            logits = forward(batch.inputs)
            if soft is None:
                soft = self.objective.teacher_logits(self.network, batch.inputs)
            elif soft.ndim > logits.ndim:  # several copies'
                soft = soft.movedim(-2, 0)
        total = self.objective.unchecked(Batch(logits, batch.labels, soft, batch.index)).total
        total.sum().backward()
        return total.detach()


def _closed_form(runs: Sequence[Run], data: OwnExamples) -> tuple[list[Tensor], Tensor]:
    """Constants `[S, 1, 1]` and targets `[S, N, K]` of all examples, as `gradient_from_targets` takes them."""
    rows, offsets, labels, classes = [], [], data.split.train_labels, data.source.classes
    for place, run in enumerate(runs):
        teacher_logits = None if run.teacher is None else data.teacher_logits[place].double()
        z = torch.zeros(*labels[place].shape, classes, dtype=torch.float64)
        batch = Batch(z, labels[place], teacher_logits, torch.arange(len(z)))
        objective = run.objective if run.teacher is None else run.objective.fitted(batch)
        offsets.append(objective.scores(batch).softmax(-1) - 1 / classes)
        hard_weight, soft_weight = objective.weights(classes)
        rows.append((hard_weight, soft_weight / objective.student_temperature, objective.student_temperature))
    constants = [column.view(-1, 1, 1) for column in torch.tensor(rows, dtype=torch.float64).unbind(-1)]
    targets = gradient_targets(labels, torch.stack(offsets), *constants[:2])
    return [values.to(data.device, data.precision) for values in constants], targets.to(data.device, data.precision)
