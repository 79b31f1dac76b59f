"""Objectives: each method's name, its teacher and its weights.

An objective is a frozen set of constants that can be called: `loss = objective(logits, labels)`. One loop serves every
method: `objective.teacher_logits(model, inputs)` gives the teacher that a method remembers itself, if it does, and
`after_step(model)` and `after_epoch(model, epoch)` let it remember.
"""

from dataclasses import fields
from difflib import get_close_matches
from typing import Any

from torch import Tensor

from ..errors import require
from ._base import Batch, Fixed, HandMade, Objective
from .hand_made import (
    LSR,
    BetaSmoothingConstant,
    CrossEntropy,
    LadderUniform,
    LsrKD,
    LsrKDTC,
    LsrKDTCShare,
    LSRWrongClasses,
    TfKDReg,
    TfKDRegLogits,
    TfKDRegReleased,
)
from .learned import (
    KD,
    ConfidencePenalty,
    KDReleased,
    KDUnscaled,
    KDWeighted,
    LadderClassMeans,
    LadderConfidence,
    LadderPermuted,
    LadderTeacher,
    PriorSmoothing,
    SelfDistillation,
    SelfDistillationReleased,
    SoftOnly,
    ZipfSmoothing,
)
from .remembered import (
    PSKD,
    BetaSmoothing,
    BetaSmoothingReleased,
    BetaSmoothingShuffled,
    MrKD,
    MrKDEnsemble,
    MrKDEnsembleKA,
    MrKDTC,
)

__all__ = [
    "ALIASES",
    "METHODS",
    "Batch",
    "Fixed",
    "HandMade",
    "Objective",
    "as_label_smoothing",
    "constants_of",
    "describe",
    "ladder",
    "objective",
]

METHODS: dict[str, type[Objective]] = {
    method.name: method
    for method in (
        *(CrossEntropy, LSR, LSRWrongClasses, ConfidencePenalty),
        *(KD, KDUnscaled, KDReleased, KDWeighted, SoftOnly, SelfDistillation, SelfDistillationReleased),
        *(TfKDReg, TfKDRegLogits, TfKDRegReleased, LsrKD, LsrKDTC, LsrKDTCShare),
        *(MrKD, MrKDTC, MrKDEnsemble, MrKDEnsembleKA, PSKD),
        *(BetaSmoothing, BetaSmoothingReleased, BetaSmoothingShuffled, BetaSmoothingConstant),
        *(ZipfSmoothing, PriorSmoothing),
        *(LadderUniform, LadderClassMeans, LadderConfidence, LadderPermuted, LadderTeacher),
    )
}
ALIASES = {"lsr-os": "lsrkd", "lsr-os-tc": "lsrkd-tc", "re-kd": "kd", "de-kd": "kd", "tf-kd-self": "kd"}
_ELSEWHERE = {  # what others call them; only suggested, for a name that is not here says nothing of its constants
    **dict.fromkeys(("label-smoothing", "ls"), "lsr"),
    **dict.fromkeys(("ce", "nll", "one-hot"), "cross-entropy"),
    **dict.fromkeys(("distillation", "knowledge-distillation", "hinton"), "kd"),
    **dict.fromkeys(("born-again", "ban"), "self-distillation"),
    **dict.fromkeys(("tf-kd", "teacher-free"), "tf-kd-reg"),
    **dict.fromkeys(("entropy-penalty", "entropy-regularization"), "confidence-penalty"),
}


def objective(method: str, **constants: Any) -> Objective:
    """The objective of a method by its name, with its default constants where none are given.

    Raises `InputError` for an unknown method or constant, or a constant out of range.
    """
    known = {**METHODS, **{alias: METHODS[name] for alias, name in ALIASES.items()}}
    asked = str(method).lower().replace("_", "-").replace(" ", "-")
    close = [asked] if asked in {*known, *_ELSEWHERE} else get_close_matches(asked, [*known, *_ELSEWHERE], 3)
    near = " or ".join(dict.fromkeys(repr(_ELSEWHERE.get(name, name)) for name in close))
    hint = f"; did you mean {near}?" if near else "; there are " + ", ".join(known)
    require(isinstance(method, str) and method in known, f"unknown method {method!r}{hint}")
    accepted = constants_of(known[method])
    for name in constants:
        takes = ", ".join(accepted) or "no constants"
        require(name in accepted, f"method {method!r} has no constant {name!r}; it takes {takes}")
    return known[method](**constants)


def constants_of(method: type[Objective]) -> list[str]:
    """The names of a method's constants."""
    return [field.name for field in fields(method) if field.init]


def describe(objective: Objective) -> dict[str, Any]:
    """The canonical form: the method's name and every constant."""
    whole = {field.name for field in fields(objective) if field.type is int}
    values = {name: getattr(objective, name) for name in constants_of(type(objective))}
    real = {name: float(v) for name, v in values.items() if isinstance(v, int) and name not in whole}
    return {"method": objective.name, **values, **real}


def ladder(teacher_logits: Tensor, labels: Tensor, *, alpha: float, temperature: float) -> list[Objective]:
    """The five rungs made from one teacher, by its logits `[N, K]` on the training set; all distil with α and τ.

    Rungs 0 and 1 take their constants from these logits; 2 to 4 are called with the teacher's logits on the batch.
    """
    rungs = (LadderUniform, LadderClassMeans, LadderConfidence, LadderPermuted, LadderTeacher)
    outputs = Batch(teacher_logits, labels, teacher_logits, index=None)
    return [rung(alpha=alpha, temperature=temperature).fitted(outputs) for rung in rungs]


def as_label_smoothing(objective: HandMade, classes: int) -> tuple[float, float]:
    """ε and loss scale of the label smoothing that has this objective's gradient, for K `classes`.

    With an unsoftened student and a hand-made teacher of excess $e = (K\\beta-1)/(K-1)$, the gradient is
    $(h+s)\\,[p - (1-\\varepsilon)\\,y - \\varepsilon u]$ with $\\varepsilon = s(1-e)/(h+s)$. Raises `InputError` for a
    softened student, which no label smoothing equals.
    """
    made = isinstance(objective, HandMade)
    require(made, f"method {objective.name!r} has no hand-made teacher; only one with it can be label smoothing")
    excess = (classes * objective.teacher_share(classes) - 1) / (classes - 1)
    tau = objective.student_temperature
    require(tau == 1, f"temperature is {tau!r}; only an unsoftened student (1) is label smoothing")
    hard_weight, soft_weight = objective.weights(classes)
    scale = hard_weight + soft_weight
    return soft_weight * (1 - excess) / scale, scale
