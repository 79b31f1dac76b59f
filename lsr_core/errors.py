"""The one exception for mistakes that a sentence explains, and the checks that raise it."""

from collections.abc import Callable, Iterable
from dataclasses import fields
from functools import partial
from math import inf
from typing import Any


class InputError(ValueError):
    """A value, file or folder that cannot be used; the message names it and says what would be right."""


def require(condition: bool, sentence: str) -> None:
    """Raise `InputError` with this sentence unless the condition holds."""
    if not condition:
        raise InputError(sentence)


def require_number(name: str, value: Any, kind: type, fits: Callable[[Any], bool], right: str) -> None:
    """Raise `InputError` that says what is `right` unless the value is a number of this kind that fits.

    The kind is int or float. NumPy's scalars, and arrays and tensors without axes, are numbers; truth values are not.
    """
    number = plain(value)
    of_kind = isinstance(number, (int, kind)) and not isinstance(number, bool)
    type_name = "" if isinstance(number, (int, float)) else f", of type {type(number).__name__}"
    require(of_kind and fits(number), f"{name} is {' '.join(repr(number).split())}{type_name}; {right}")


_real, _whole = partial(require_number, kind=float), partial(require_number, kind=int)
# Each is called with a name and a value, and raises `InputError` unless the value is:
require_fraction = partial(_real, fits=lambda v: 0 <= v <= 1, right="it must be a number from 0 to 1")
require_positive = partial(_real, fits=lambda v: 0 < v < inf, right="it must be a finite number above 0")
require_not_negative = partial(_real, fits=lambda v: 0 <= v < inf, right="it must be a finite number, 0 or above")
require_count = partial(_whole, fits=lambda v: v > 0, right="it must be a whole number above 0")
require_seed = partial(_whole, "seed", fits=lambda v: v >= 0, right="it must be a whole number, 0 or above")
require_classes = partial(_whole, "classes", fits=lambda v: v >= 2, right="it must be a whole number, 2 or above")


def require_temperature(name: str, value: float) -> None:
    """Raise `InputError` unless the value is a temperature at which every loss keeps its digits, 0.001 to 1e9."""
    require_positive(name, value)
    _real(name, value, fits=lambda v: 1e-3 <= v <= 1e9, right="losses keep their digits from 0.001 to 1e9")


def counts(name: str, values: Iterable[int]) -> tuple[int, ...]:
    """The values as a tuple; raises `InputError` unless they are whole numbers above 0."""
    values = plain(values)
    several = isinstance(values, Iterable) and not isinstance(values, (str, bytes))
    require(several, f"{name} is {values!r}; it must be a list of whole numbers above 0")
    values = tuple(plain(value) for value in values)
    for value in values:
        require_count(name, value)
    return values


def plain(value: Any) -> Any:
    """The number in a NumPy scalar, or in an array or a tensor without axes; anything else as it is."""
    return value.item() if getattr(value, "ndim", None) == 0 else value


def hold_plain(instance: Any) -> None:
    """Convert the fields of a frozen dataclass to Python's numbers: equal values are one description, and writable."""
    for field in fields(instance):
        object.__setattr__(instance, field.name, plain(getattr(instance, field.name)))
