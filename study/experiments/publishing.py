"""What is published of each study that pages do not run: its arms by file, its seeds, and its runs in order."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lsr_core.errors import require
from lsr_core.run import Run

from ..paper import grid
from .arms import PRESETS, TUNING_SEEDS, Arm
from .desktop import desktop_arms, desktop_grid
from .single import REFERENCE_SEEDS, reference_grid, references, regime_grid, regime_trials


@dataclass(frozen=True)
class Published:
    """A study whose records come with the project: arms by name, by the file they stand in; seeds; runs in order."""

    arms: Callable[[], dict[str, dict[str, Arm | Run]]]
    grid: Callable[[], list[Run]]
    seeds: Sequence[int]


STUDIES = {
    "desktop": Published(desktop_arms, desktop_grid, range(PRESETS["desktop"].seeds)),
    "paper": Published(lambda: {data: grid.paper_arms(data) for data in grid.DATA}, grid.paper_grid, grid.SEEDS),
    "reference": Published(references, reference_grid, REFERENCE_SEEDS),
    "regime": Published(regime_trials, regime_grid, TUNING_SEEDS[:1]),
}


def study(name: str) -> Published:
    """The published study of this name, mostly a preset's; raises `InputError` for another one."""
    require(name in STUDIES, f"{name!r} is not published; there are {', '.join(STUDIES)}")
    return STUDIES[name]
