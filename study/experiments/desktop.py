"""The desktop preset: the arms that each chapter shows beside its live ones, and the order of their runs.

Images: 50 of each class of CIFAR-100, on which every method is tuned by validation. Audio: GTZAN's features, tuned and
tested fold by fold.
"""

from functools import cache

from lsr_core.run import Run, TrainedTeacher

from .arms import PRESETS, Arm
from .named import arm
from .tuning import AUDIO, CIFAR

AUDIO_METHODS = {"cross-entropy": "CE", "lsr": "LSR", "lsrkd": "LSR-OS", "lsrkd-tc": "LSR-OS-TC", "mrkd": "MrKD"}
_FASTER, _FREER = (tuple(f"taught/{e}/{t}/{pace}" for t in (1, 4) for e in (0, 0.1)) for pace in ("0.2", "0.05/0.002"))
_SHOWN = {
    "label_smoothing": ("cross-entropy", "lsr"),
    "distillation": ("kd", "teacher/strong"),
    "weak_teachers": ("re-kd", "teacher/weak", "de-kd", "teacher/poor"),
    "teacher_free": ("tf-kd-reg", "tf-kd-reg-released", "tf-kd-self", "teacher/equal"),
    "lsrkd": ("lsrkd", "lsrkd-tc"),
    "mrkd": ("mrkd", "mrkd-tc"),
    "generations": ("generation-0", "generation-1", "generation-2", "generation-3"),
    "instance_smoothing": ("beta-smoothing", "zipf"),
    "ladder": ("ladder-uniform", "ladder-class-means", "ladder-confidence", "ladder-permuted"),
    "smoothed_teachers": (
        *("teacher/strong/0.1", "taught/0/1", "taught/0.1/1", "taught/0/4", "taught/0.1/4"),
        *_FASTER,
        *_FREER,
    ),
}
_TIERS = (
    ("cross-entropy", "lsr", "lsrkd", "lsrkd-tc", "tf-kd-reg"),
    ("kd", "de-kd"),
    ("tf-kd-reg-released",),
    ("mrkd", "mrkd-tc", "re-kd", "tf-kd-self", "beta-smoothing", "zipf"),
    _SHOWN["ladder"],
    ("taught/0/1", "taught/0.1/1"),
    ("taught/0/4", "taught/0.1/4"),
    ("generation-0", "generation-1"),
    ("generation-2", "generation-3"),
    _FASTER,
    _FREER,
)


@cache
def desktop_arms() -> dict[str, dict[str, Arm]]:
    """The arms whose runs are published, by name, under the first chapter that shows them."""
    shown = {chapter: {name: arm(CIFAR, name) for name in names} for chapter, names in _SHOWN.items()}
    shown["lsrkd"] |= {f"{setting.data} {name}": arm(setting, name) for setting in AUDIO for name in AUDIO_METHODS}
    return shown


def desktop_grid() -> list[Run]:
    """Every run of the preset: audio, then tier by tier of the arms on images, each seed by seed, teachers included.

    Whenever it stops, what is there are complete pairs.
    """
    named = {name: arm for arms in desktop_arms().values() for name, arm in arms.items()}
    seeds = range(PRESETS["desktop"].seeds)
    runs = {}
    for tier in ([name for name in named if " " in name], *_TIERS):
        for run in (named[name].run(seed) for seed in seeds for name in tier):
            if isinstance(run.teacher, TrainedTeacher):
                runs.setdefault(run.teacher.run.key, run.teacher.run)
            runs.setdefault(run.key, run)
    return list(runs.values())
