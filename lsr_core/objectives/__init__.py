"""Objectives: each method's name, its teacher and its weights.

An objective is a frozen set of constants that can be called: `loss = objective(logits, labels)`. One loop serves every
method: `objective.teacher_logits(model, inputs)` returns the logits of a teacher that the method remembers itself, and
`after_step(model)` and `after_epoch(model, epoch)` let it remember.
"""

import hashlib
from dataclasses import fields
from difflib import get_close_matches
from functools import cache
from types import CodeType, NoneType
from typing import Any

from torch import Tensor

from ..errors import require
from . import hand_made, learned, remembered
from ._base import Batch, Fixed, HandMade, Objective

__all__ = ["Batch", "Fixed", "HandMade", "Objective"]

METHODS: dict[str, type[Objective]] = {
    method.name: method
    for module in (hand_made, learned, remembered)
    for method in vars(module).values()
    if isinstance(method, type) and issubclass(method, Objective) and "name" in vars(method)
}
ALIASES = {"lsr-os": "lsrkd", "lsr-os-tc": "lsrkd-tc", "re-kd": "kd", "de-kd": "kd", "tf-kd-self": "kd"}
_COMMON_NAMES = {  # only suggested: other libraries' names say nothing about the constants
    **dict.fromkeys(("label-smoothing", "ls"), "lsr"),
    **dict.fromkeys(("ce", "nll", "one-hot"), "cross-entropy"),
    **dict.fromkeys(("distillation", "knowledge-distillation", "hinton"), "kd"),
    **dict.fromkeys(("born-again", "ban"), "self-distillation"),
    **dict.fromkeys(("tf-kd", "teacher-free"), "tf-kd-reg"),
    **dict.fromkeys(("entropy-penalty", "entropy-regularization"), "confidence-penalty"),
}


def objective(method: str, **constants: Any) -> Objective:
    """The objective of a method by its name; constants that are not given have their defaults.

    Raises `InputError` for an unknown method or constant, or a constant out of range.
    """
    known = METHODS | {alias: METHODS[name] for alias, name in ALIASES.items()}
    require(isinstance(method, str) and method in known, f"unknown method {method!r}{_hint(method, list(known))}")
    accepted = constants_of(known[method])
    for name in constants:
        takes = ", ".join(accepted) or "no constants"
        require(name in accepted, f"method {method!r} has no constant {name!r}; it takes {takes}")
    return known[method](**constants)


def _hint(method: Any, known: list[str]) -> str:
    """The methods that an unknown name may mean, or all there are."""
    name, names = str(method).lower().replace("_", "-").replace(" ", "-"), [*known, *_COMMON_NAMES]
    close = [name] if name in names else get_close_matches(name, names, 3)
    near = " or ".join(dict.fromkeys(repr(_COMMON_NAMES.get(name, name)) for name in close))
    return f"; did you mean {near}?" if near else "; there are " + ", ".join(known)


def constants_of(method: type[Objective]) -> list[str]:
    """The names of a method's constants."""
    return [field.name for field in fields(method) if field.init]


def describe(objective: Objective) -> dict[str, Any]:
    """The canonical form: the method's name and every constant, and of a class of one's own a hash of its code."""
    whole = {field.name for field in fields(objective) if field.type is int}
    values = {name: getattr(objective, name) for name in constants_of(type(objective))}
    real = {name: float(v) for name, v in values.items() if isinstance(v, int) and name not in whole}
    return {"method": objective.name, **values, **real, **_code_of(type(objective))}


def check_own(method: type[Objective]) -> None:
    """Raise `InputError` for an objective of one's own that a record could not be told by."""
    name = getattr(method, "name", None)
    if METHODS.get(name) is method:
        return
    require(isinstance(name, str), f"{method.__name__} has no name; give it one, name: ClassVar[str]")
    require(name not in METHODS, f"{method.__name__} is called {name!r}, as a method of the library is; rename it")
    is_plain = "__dataclass_fields__" in vars(method)
    right = "decorate it by @dataclass(frozen=True, kw_only=True), so that its constants are known"
    require(is_plain, f"{method.__name__} is no dataclass; {right}")


@cache
def _code_of(method: type[Objective]) -> dict[str, str]:
    """A hash of the code of a class outside the library, and of those that it derives from."""
    package, called = __name__.partition(".")[0], ("__call__", "__post_init__")
    own = [kind for kind in method.__mro__[:-1] if kind.__module__.partition(".")[0] != package]
    parts = [
        f"{name}: {_text_of(value)}"
        for kind in own
        for name, value in sorted(vars(kind).items())
        if not name.startswith("__") or name in called
    ]
    return {"code": hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]} if own else {}


def _text_of(value: Any) -> str:
    """A function, a property or a constant in words that do not depend on where it stands."""
    function = getattr(value, "fget", getattr(value, "__func__", value))
    code = getattr(function, "__code__", function)
    if isinstance(code, CodeType):
        return repr((code.co_code, code.co_names, [_text_of(constant) for constant in code.co_consts]))
    if isinstance(value, (tuple, frozenset)):
        parts = [_text_of(part) for part in value]
        return repr(parts if isinstance(value, tuple) else sorted(parts))  # a set's order is the process's
    is_plain = isinstance(value, (str, bytes, int, float, NoneType))
    return repr(value) if is_plain else type(value).__name__


def ladder(teacher_logits: Tensor, labels: Tensor, *, alpha: float, temperature: float) -> list[Objective]:
    """The five rungs of one teacher, given its logits `[N, K]` on the training set; all distil with α and τ.

    The constants of rungs 0 and 1 are computed from these logits; call 2 to 4 with the teacher's logits on the batch.
    """
    outputs = Batch(teacher_logits, labels, teacher_logits)
    rungs = (METHODS[f"ladder-{rung}"] for rung in ("uniform", "class-means", "confidence", "permuted", "teacher"))
    return [rung(alpha=alpha, temperature=temperature).fitted(outputs) for rung in rungs]


def as_label_smoothing(objective: HandMade, classes: int) -> tuple[float, float]:
    """ε and loss scale of the label smoothing that has this objective's gradient, for K `classes`.

    With an unsoftened student and a hand-made teacher of excess $e = (K\\beta-1)/(K-1)$, the gradient is
    $(h+s)\\,[p - (1-\\varepsilon)\\,y - \\varepsilon u]$ with $\\varepsilon = s(1-e)/(h+s)$. Raises `InputError` for a
    softened student, which no label smoothing equals.
    """
    has_share = isinstance(objective, HandMade)
    require(has_share, f"method {objective.name!r} has no hand-made teacher; only one with it can be label smoothing")
    excess = (classes * objective.teacher_share(classes) - 1) / (classes - 1)
    tau = objective.student_temperature
    require(tau == 1, f"temperature is {tau!r}; only an unsoftened student (1) is label smoothing")
    hard_weight, soft_weight = objective.weights(classes)
    scale = hard_weight + soft_weight
    return soft_weight * (1 - excess) / scale, scale
