"""Label smoothing and knowledge distillation: the losses, teachers, metrics and trainers of one study."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import InputError

if TYPE_CHECKING:
    from .losses import Loss
    from .objectives import METHODS, objective

__all__ = ["METHODS", "InputError", "Loss", "objective"]
__version__ = "0.1.0"
_PLACES = {"METHODS": "objectives", "Loss": "losses", "objective": "objectives"}


def __getattr__(name: str) -> Any:
    """Import torch when it is first needed: `lsr --version` does without it."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_PLACES[name]}", __name__), name)
