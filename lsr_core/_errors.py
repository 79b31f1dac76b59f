"""The one exception for mistakes that a sentence explains."""

from typing import Any


class InputError(ValueError):
    """A value, file or folder that cannot be used; the message names it and says what would be right."""


def require(condition: bool, sentence: str) -> None:
    """Raise `InputError` with this sentence unless the condition holds."""
    if not condition:
        raise InputError(sentence)


def require_fraction(name: str, value: float) -> None:
    """Raise `InputError` unless the value is a number in [0, 1]."""
    require(_is_number(value) and 0 <= value <= 1, f"{name} is {value!r}; it must be a number from 0 to 1")


def require_positive(name: str, value: float) -> None:
    """Raise `InputError` unless the value is a finite number above 0."""
    require(_is_number(value) and 0 < value < float("inf"), f"{name} is {value!r}; it must be a finite number above 0")


def require_temperature(name: str, value: float) -> None:
    """Raise `InputError` unless the value is a temperature at which every loss keeps its digits, 0.001 to 1e9."""
    require_positive(name, value)
    require(1e-3 <= value <= 1e9, f"{name} is {value!r}; losses keep their digits from 0.001 to 1e9")


def require_not_negative(name: str, value: float) -> None:
    """Raise `InputError` unless the value is a finite number, 0 or above."""
    fits = _is_number(value) and 0 <= value < float("inf")
    require(fits, f"{name} is {value!r}; it must be a finite number, 0 or above")


def require_count(name: str, value: int) -> None:
    """Raise `InputError` unless the value is a whole number above 0."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    require(whole and value > 0, f"{name} is {value!r}; it must be a whole number above 0")


def require_classes(classes: int) -> None:
    """Raise `InputError` unless there are at least two classes."""
    whole = isinstance(classes, int) and not isinstance(classes, bool)
    require(whole and classes >= 2, f"classes is {classes!r}; it must be a whole number, 2 or above")


def plain(value: Any) -> Any:
    """A scalar of numpy or a tensor without axes as Python's number; anything else as it is."""
    return value.item() if getattr(value, "shape", None) == () else value


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
