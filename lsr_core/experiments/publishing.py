"""What is published of each preset that pages do not run: its arms by chapter, and its runs in order."""

from .._errors import require
from ..runs import Run
from .arms import Arm
from .desktop import desktop_arms, desktop_grid

_PUBLISHED = {"desktop": (desktop_arms, desktop_grid)}


def published_arms(preset: str) -> dict[str, dict[str, Arm]]:
    """The arms whose runs are published, by name, by the file they stand in; raises `InputError` for another preset."""
    return _of(preset)[0]()


def published_grid(preset: str) -> list[Run]:
    """Every run of a published preset, in the order in which they are made; raises `InputError` for another one."""
    return _of(preset)[1]()


def _of(preset: str) -> tuple:
    require(preset in _PUBLISHED, f"preset {preset!r} is not published; there are {', '.join(_PUBLISHED)}")
    return _PUBLISHED[preset]
