"""What the papers claim, and the verdict on each.

A claim compares two arms on one metric, seed by seed, and is judged by the rule in `statistics`; its family is
paper × preset. An identity is checked in float64, in value and gradient, and is proved or refuted.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from . import statistics
from .experiments import (
    DIGITS,
    MEASURES,
    MIXTURES,
    Arm,
    Results,
    Setting,
    collect,
    is_exploratory,
    preset,
    signed,
    tuned,
)
from .losses import cross_entropy, distillation_loss, kl_divergence, smoothed_labels
from .objectives import Objective, objective
from .records import Store
from .statistics import PROVED, REFUTED, Kind, Paired, Verdict
from .teachers import TargetGap, probabilities

MULLER, YUAN, WANG = "Müller 2019", "Yuan 2020", "Wang 2020, 2021"
SHEN, HINTON, OWN = "Shen 2021", "Hinton 2015", "this study"


@dataclass(frozen=True)
class Claim:
    """`method` beats (or is comparable to) `control` on `metric` in `setting`; `chapter` is its notebook."""

    id: str
    paper: str
    text: str
    chapter: str
    setting: Setting
    method: str
    control: str
    metric: str = "accuracy"
    kind: Kind = "better"
    printed: str = "–"  # what the paper prints, and where

    @property
    def arms(self) -> tuple[Arm, Arm]:
        """The two tuned arms: the method and its control."""
        return tuned(self.setting, self.method), tuned(self.setting, self.control)


@dataclass(frozen=True)
class Identity:
    """An exact statement; `error` computes the largest relative error over float64 draws, in value and gradient."""

    id: str
    paper: str
    text: str
    chapter: str
    error: Callable[[], float]
    tolerance: float = 1e-9


@dataclass(frozen=True)
class Judgement:
    """A claim with its verdict; identities have no differences, `error` instead."""

    claim: Claim | Identity
    preset: str
    verdict: Verdict
    differences: Paired | None = None
    holm_p: float | None = None
    flip_p: float | None = None
    error: float | None = None
    exploratory: bool = False

    @property
    def effect(self) -> str:
        """Mean and 95 % interval in the metric's unit, positive where the claim says so; or the identity's error."""
        if self.differences is None:
            return f"largest relative error {self.error:.0e}"
        return signed(self.differences.mean, self.differences.interval95, MEASURES[self.claim.metric].digits)

    @property
    def sentence(self) -> str:
        """The judgement in one sentence."""
        if self.differences is None:
            return f"{self.claim.text}: {self.verdict}, {self.effect}."
        d, measure = self.differences, MEASURES[self.claim.metric]
        tail = ""
        if self.verdict.word == statistics.UNDECIDED:
            tail = f"; this many seeds would have shown {d.detectable:.{measure.digits}f} with 80 % power"
        return (
            f"{self.claim.text}: {self.verdict}, {self.effect} {measure.unit}, Holm p {format_p(self.holm_p)}, "
            f"{d.n} paired seeds, preset {self.preset}{', exploratory' if self.exploratory else ''}{tail}."
        )


def _smoothing_claims() -> list[Claim]:
    return [
        Claim(
            f"{name}-{s.train}",
            MULLER,
            f"{text} ({s})",
            "label_smoothing",
            s,
            "lsr",
            "cross-entropy",
            metric,
            printed=printed,
        )
        for s in DIGITS
        for name, text, metric, printed in (
            ("B1", "LSR beats cross-entropy", "accuracy", "72.1 → 72.7 %, CIFAR-100 ResNet-56 (Table 2)"),
            ("M2a", "LSR improves calibration error", "ece", "ECE .150 → .024, CIFAR-100 ResNet-56 (Table 3)"),
            ("M2b", "LSR improves likelihood beyond one temperature", "nll_scaled", "not printed"),
        )
    ]


_UNREAD = "not known: only the abstract could be read"


def _softening_claims() -> list[Claim]:
    comparisons: tuple[tuple[str, str, str, str, Kind], ...] = (
        ("W1", "LsrKD beats LSR", "lsrkd", "lsr", "better"),
        ("W4", "teacher correction improves LsrKD", "lsrkd-tc", "lsrkd", "better"),
        ("W7", "LsrKD-TC is comparable to LSR or better", "lsrkd-tc", "lsr", "comparable or better"),
    )
    return [
        Claim(f"{name}-{s.train}", WANG, f"{text} ({s})", "lsrkd", s, method, control, kind=kind, printed=_UNREAD)
        for s in DIGITS
        for name, text, method, control, kind in comparisons
    ]


def _truth_claims() -> list[Claim]:
    bayes = {setting: setting.data.rpartition("-")[2] for setting in MIXTURES}
    return [
        Claim(f"{name}-{bayes[s]}", OWN, f"{text} (Bayes accuracy {bayes[s]} %)", "lsrkd", s, method, control, metric)
        for s in MIXTURES
        for name, text, method, control, metric in (
            ("P1", "LSR is nearer to the truth than cross-entropy", "lsr", "cross-entropy", "kl_posterior"),
            ("P2", "LSR tells more of the wrong classes than cross-entropy", "lsr", "cross-entropy", "kl_dark"),
        )
    ]


CLAIMS: tuple[Claim, ...] = (*_smoothing_claims(), *_softening_claims(), *_truth_claims())


def judge(
    seeds: Sequence[int], preset_name: str = "quick", paper: str | None = None, store: Store | None = None
) -> list[Judgement]:
    """Verdicts on all claims, or on one paper's family; missing runs are trained. Holm's p is over the family."""
    preset(preset_name)
    claims = [claim for claim in CLAIMS if paper in (None, claim.paper)]
    results = collect([arm for claim in claims for arm in claim.arms], seeds, store)
    differences = {claim: _oriented(claim, results) for claim in claims}
    summed = {claim: statistics.paired(values) for claim, values in differences.items()}
    adjusted = {}
    for family in dict.fromkeys(claim.paper for claim in claims):
        members = [claim for claim in claims if claim.paper == family]
        adjusted |= zip(members, statistics.holm([summed[claim].p for claim in members]), strict=True)
    return [
        Judgement(
            claim,
            preset_name,
            statistics.verdict(
                summed[claim],
                adjusted[claim],
                MEASURES[claim.metric].margin,
                claim.kind,
                [results.diverged(arm) for arm in claim.arms],
            ),
            summed[claim],
            adjusted[claim],
            statistics.sign_flip_p(differences[claim]),
            exploratory=is_exploratory(preset_name, seeds),
        )
        for claim in claims
    ]


def _oriented(claim: Claim, results: Results) -> np.ndarray:
    """The differences seed by seed in the metric's unit, positive where the claim says so."""
    measure, (method, control) = MEASURES[claim.metric], claim.arms
    sign = 1 if measure.higher_is_better else -1
    return sign * measure.scale * results.differences(method, control, claim.metric)


def judge_identities() -> list[Judgement]:
    """Verdicts on all identities."""
    judgements = []
    for identity in IDENTITIES:
        error = identity.error()
        word = PROVED if error <= identity.tolerance else REFUTED
        judgements.append(Judgement(identity, "every preset", Verdict(word), error=error))
    return judgements


def board(judgements: Sequence[Judgement]) -> pd.DataFrame:
    """The verdict board: a row a claim."""
    rows = [
        {
            "id": j.claim.id,
            "claim": j.claim.text,
            "paper": j.claim.paper,
            "verdict": str(j.verdict),
            "preset": j.preset + (" (exploratory)" if j.exploratory else ""),
            "metric": MEASURES[j.claim.metric].change if j.differences else "value and gradient",
            "effect, 95 % interval": j.effect,
            "Holm p": format_p(j.holm_p),
            "sign-flip p": format_p(j.flip_p),
            "n": j.differences.n if j.differences else "–",
            "printed in the paper": getattr(j.claim, "printed", "–"),
            "chapter": j.claim.chapter,
        }
        for j in judgements
    ]
    return pd.DataFrame(rows).set_index("id")


def format_p(p: float | None) -> str:
    """A p value as it is printed."""
    if p is None:
        return "–"
    return "< .0001" if p < 1e-4 else f"{p:.4f}".lstrip("0") if p < 1 else "1"


# Identities: each compares two losses of random float64 logits, labels and teachers.

_CLASSES, _DRAWS = 10, 64


def _draw() -> tuple[Tensor, Tensor, Tensor]:
    """Student logits and teacher logits `[64, 10]`, and labels."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(_DRAWS, _CLASSES, generator=generator, dtype=torch.float64) * 3 for _ in range(2))
    labels = torch.randint(_CLASSES, (_DRAWS,), generator=generator)
    return student.requires_grad_(), teacher, labels


def _by_row(loss: Objective, logits: Tensor, labels: Tensor) -> Tensor:
    """An objective's value on every row `[B]`: each row is a stack of its own, with a batch of one."""
    return loss(logits[:, None], labels[:, None]).total


def compare(first: Tensor, second: Tensor, logits: Tensor) -> float:
    """The largest relative error between two losses `[B]` of the same logits, up to a constant, and their gradients."""
    offset = (first - second).detach()
    value = ((offset - offset.mean()).norm() / second.detach().norm()).item()
    gradients = [torch.autograd.grad(loss.sum(), logits, retain_graph=True)[0] for loss in (first, second)]
    return max(value, ((gradients[0] - gradients[1]).norm() / gradients[1].norm()).item())


def _smoothing_is_distillation() -> float:
    logits, _, labels = _draw()
    epsilon = 0.1
    smoothed = cross_entropy(smoothed_labels(labels, _CLASSES, epsilon, dtype=torch.float64), logits)
    one_hot = torch.nn.functional.one_hot(labels, _CLASSES).double()
    uniform = torch.full_like(logits, 1 / _CLASSES)
    distilled = (1 - epsilon) * cross_entropy(one_hot, logits) + epsilon * kl_divergence(uniform, logits)
    return compare(smoothed, distilled, logits)


def _distillation_is_learned_smoothing() -> float:
    logits, teacher, labels = _draw()
    alpha = 0.3
    q, one_hot = teacher.softmax(-1), torch.nn.functional.one_hot(labels, _CLASSES).double()
    mixed = cross_entropy((1 - alpha) * one_hot + alpha * q, logits)
    entropy = -torch.special.xlogy(q, q).sum(-1)
    distilled = (1 - alpha) * cross_entropy(one_hot, logits) + alpha * (kl_divergence(q, logits) + entropy)
    return compare(distilled, mixed, logits)


def _softened_teacher_tends_to_uniform() -> float:
    """τ times the distance from uniform tends to the centred logits over K: the softened teacher goes as 1/τ."""
    _, teacher, _ = _draw()
    tau = 1e6
    rate = tau * ((teacher / tau).softmax(-1) - 1 / _CLASSES)
    limit = (teacher - teacher.mean(-1, keepdim=True)) / _CLASSES
    return ((rate - limit).norm() / limit.norm()).item()


def _correction_at_one_is_smoothing() -> float:
    logits, _, labels = _draw()
    alpha, share = 0.3, 0.4
    epsilon = alpha * (1 - share) * _CLASSES / (_CLASSES - 1)
    corrected = objective("lsrkd-tc-share", alpha=alpha, temperature=1.0, share=share)
    return compare(
        _by_row(corrected, logits, labels), _by_row(objective("lsr", epsilon=epsilon), logits, labels), logits
    )


def _soft_limit_is_variance() -> float:
    logits, _, labels = _draw()
    tau = 1e6
    soft = objective("lsrkd", alpha=1.0, temperature=tau)
    return compare(_by_row(soft, logits, labels), logits.var(-1, correction=0) / 2, logits)


def _high_temperature_is_logit_matching() -> float:
    """τ²·KL between softened teacher and student tends to half the mean squared difference of centred logits."""
    logits, teacher, labels = _draw()
    tau = 1e5
    q = (teacher / tau).softmax(-1)
    loss = distillation_loss(logits, labels, q, hard_weight=0.0, soft_weight=tau**2, temperature=tau).total
    (gradient,) = torch.autograd.grad(loss, logits)
    difference = (logits - teacher).detach()
    limit = (difference - difference.mean(-1, keepdim=True)) / (_CLASSES * _DRAWS)
    return ((gradient - limit).norm() / limit.norm()).item()


def _soft_only_is_smoothing() -> float:
    """Soft-only distillation from a hand-made teacher at τ = 1 has label smoothing's gradient."""
    logits, _, labels = _draw()
    gap = 4.5
    share = TargetGap(gap).share(_CLASSES, 1.0)
    epsilon = (1 - share) * _CLASSES / (_CLASSES - 1)
    q = probabilities(TargetGap(gap), labels, _CLASSES, dtype=torch.float64)
    smoothed = smoothed_labels(labels, _CLASSES, epsilon, dtype=torch.float64)
    return compare(cross_entropy(q, logits), cross_entropy(smoothed, logits), logits)


IDENTITIES: tuple[Identity, ...] = (
    Identity(
        "I1", YUAN, "LSR is distillation from a uniform teacher at τ = 1", "lsr_is_kd", _smoothing_is_distillation
    ),
    Identity(
        "Y4", YUAN, "distillation at τ = 1 is LSR with learned targets", "lsr_is_kd", _distillation_is_learned_smoothing
    ),
    Identity(
        "Y5", YUAN, "the softened teacher tends to uniform", "lsr_is_kd", _softened_teacher_tends_to_uniform, 1e-4
    ),
    Identity(
        "H1", HINTON, "high temperature is logit matching", "lsr_is_kd", _high_temperature_is_logit_matching, 1e-3
    ),
    Identity("S10", SHEN, "soft-only distillation and LSR share their objective", "lsr_is_kd", _soft_only_is_smoothing),
    Identity("I2", OWN, "teacher correction at τ = 1 is LSR", "lsr_is_kd", _correction_at_one_is_smoothing),
    Identity("I3", OWN, "very soft LsrKD is half the logit variance", "lsr_is_kd", _soft_limit_is_variance, 1e-4),
)
