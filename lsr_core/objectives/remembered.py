"""Methods that remember their own teacher: past copies, an average of the weights, or past predictions."""

from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, log_softmax, nn

from ..losses import divergence
from ..memory import LearnedEnsemble, Memory, MovingAverage, PastCopies, Predictions
from ..teachers import beta_draws, matched_by_rank, mean_scores, share_scores, shift_wrong, softened
from ._base import Batch, Objective

_OWN = {"init": False, "repr": False, "compare": False}  # a memory is no constant: every objective has its own


@dataclass(frozen=True, kw_only=True)
class MrKD(Objective):
    """Memory replay, $(1-\\alpha) H(y,p) + \\frac{\\alpha\\tau^2}{n}\\sum_i D_{KL}(p^{(t_i)}_\\tau\\|p_\\tau)$.

    The teachers are the newest n = `copies` of the model, one after `every` κ epochs; before the first, the loss is
    cross-entropy. The sum is computed as one divergence from the copies' mean, which is the same up to a constant (Wang
    2020; Sensors 2021; reconstructed from the abstracts, constants are this study's).
    """

    name = "mrkd"
    several_teachers = True
    alpha: float = 0.5
    temperature: float = 4.0
    copies: int = 3
    every: int = 5
    memory: PastCopies = field(default_factory=PastCopies, **_OWN)

    def after_epoch(self, model: nn.Module, epoch: int) -> None:
        super().after_epoch(model, epoch)
        if self.memory.epochs % self.every == 0:
            self.memory.store(model, self.copies)

    def scores(self, copies: Tensor, batch: Batch) -> Tensor:
        """The softened teacher's scores `[..., B, K]` from the copies' logits `[n, ..., B, K]`."""
        return mean_scores(copies, self.temperature)

    def soft(self, batch: Batch) -> Tensor | None:
        if batch.teacher_logits is None and not self.memory.copies:
            return None
        return divergence(self.scores(self._copies(batch), batch), batch.logits, self.temperature)

    def _copies(self, batch: Batch) -> Tensor:
        copies = self.required_teacher(batch)
        return copies if copies.ndim > batch.logits.ndim else copies[None]


@dataclass(frozen=True, kw_only=True)
class MrKDTC(MrKD):
    """MrKD with teacher correction: `teachers.replace_wrong` replaces a copy that is wrong.

    Reconstructed from the abstract (Wang 2020), with the rule of knowledge adjustment by label smoothing.
    """

    name = "mrkd-tc"
    share: float = 0.9

    def scores(self, copies: Tensor, batch: Batch) -> Tensor:
        return mean_scores(copies, self.temperature, batch.labels, self.share)


@dataclass(frozen=True, kw_only=True)
class MrKDEnsemble(MrKD):
    """MrKD with a learned, fully connected layer that combines the copies (Sensors 2021; reconstructed).

    `rate` is the size of the layer's normalised steps, one for each step of the model (`memory.LearnedEnsemble`).
    """

    name = "mrkd-fcn"
    rate: float = 1.0
    memory: LearnedEnsemble = field(default_factory=LearnedEnsemble, **_OWN)

    def scores(self, copies: Tensor, batch: Batch) -> Tensor:
        return softened(self.memory.join(copies), self.temperature)

    def remember(self, batch: Batch) -> None:
        super().remember(batch)
        if batch.teacher_logits is not None:
            self.memory.batches.append((self._copies(batch).detach(), batch.labels))

    def after_step(self, model: nn.Module) -> None:
        super().after_step(model)
        self.memory.learn(self.rate)


class MrKDEnsembleKA(MrKDEnsemble):
    """MrKD's journal form: learned ensemble and knowledge adjustment (Sensors 2021; reconstructed).

    Where the ensemble is wrong, `teachers.shift_wrong` exchanges the logits of the predicted class and the label.
    """

    name = "mrkd-fcn-ka"

    def scores(self, copies: Tensor, batch: Batch) -> Tensor:
        return shift_wrong(super().scores(copies, batch), batch.labels)


@dataclass(frozen=True, kw_only=True)
class PSKD(Objective):
    """PS-KD, $H((1-\\alpha_t) y + \\alpha_t p^{(t-1)}, p)$ up to a constant, $\\alpha_t = \\alpha\\,t/T$ (Kim 2021).

    The teacher is the model's prediction when it last trained on the example, normally in the last epoch, from a table
    by `index`; before the first prediction it is the label. A later epoch that shows new examples warns. `epochs` is T.
    """

    name = "ps-kd"
    alpha: float = 0.8
    epochs: int = 300
    memory: Predictions = field(default_factory=Predictions, **_OWN)

    def weights(self, classes: int) -> tuple[float, float]:
        alpha = self.alpha * min((self.memory.epochs + 1) / self.epochs, 1.0)
        return 1 - alpha, alpha

    def soft(self, batch: Batch) -> Tensor:
        return divergence(self.memory.recall(batch.logits, batch.labels, self.required_index(batch)), batch.logits)

    def remember(self, batch: Batch) -> None:
        super().remember(batch)
        self.memory.keep(batch.logits, batch.index)


@dataclass(frozen=True, kw_only=True)
class BetaSmoothingShuffled(Objective):
    """Beta smoothing's control: each example gets a share $b$ drawn from Beta(a, 1), whatever its confidence.

    $(1-\\alpha) H(y,p) + \\alpha H(q,p)$ up to a constant, $q_y = b$ (this study). Each training loss draws again, from
    torch's own stream or from `memory.generators`, a list of one generator of yours.
    """

    name = "beta-smoothing-shuffled"
    alpha: float = 0.6
    a: float = 3.0
    memory: Memory = field(default_factory=Memory, **_OWN)

    def shares(self, draws: Tensor, batch: Batch) -> Tensor:
        """The draws `[..., B]` in the order of the examples."""
        return draws

    def soft(self, batch: Batch) -> Tensor:
        draws = beta_draws(batch.labels.shape, self.a, self.memory.streams).to(batch.logits.device)
        return divergence(share_scores(self.shares(draws, batch), batch.labels, batch.logits.shape[-1]), batch.logits)


@dataclass(frozen=True, kw_only=True)
class BetaSmoothing(BetaSmoothingShuffled):
    """Beta smoothing, $(1-\\alpha) H(y,p) + \\alpha H(q,p)$ up to a constant, $q_y = b$ (Zhang & Sabuncu 2020).

    The draws $b$ from Beta(a, 1) are matched by rank: the largest goes to the example of which an average of the
    weights (`memory.MovingAverage`, started from the student) is most confident.
    """

    name = "beta-smoothing"
    decay: float = 0.999
    memory: MovingAverage = field(default_factory=MovingAverage, **_OWN)

    def after_step(self, model: nn.Module) -> None:
        super().after_step(model)
        self.memory.update(model, self.decay)

    def shares(self, draws: Tensor, batch: Batch) -> Tensor:
        log_q = log_softmax(self.required_teacher(batch).float(), -1).gather(-1, batch.labels[..., None])[..., 0]
        return matched_by_rank(draws, log_q).where(log_q.isfinite(), torch.nan)  # ranks would hide a nan


@dataclass(frozen=True, kw_only=True)
class BetaSmoothingReleased(BetaSmoothing):
    """Beta smoothing as released: the average starts from random weights of its own (`train_smoothing.py`).

    The code takes $\\ln(p + 10^{-8})$, this $\\ln p$ (`study.released_code.offset_cross_entropy`).
    """

    name = "beta-smoothing-released"
    memory: MovingAverage = field(default_factory=partial(MovingAverage, random_start=True), **_OWN)
