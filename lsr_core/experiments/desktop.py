"""The desktop preset: the arms that each chapter shows beside its live ones, and the order of their runs.

Images: 50 of each class of CIFAR-100, on which every method is tuned by validation. Audio: GTZAN's features, tuned and
tested fold by fold.
"""

from functools import cache

from ..augmentation import Augmentation
from ..models import ImageNetwork
from ..objectives import objective
from ..runs import Run, TrainedTeacher
from ..schedules import Schedule
from .arms import PRESETS, TUNING_SEEDS, Arm, Setting
from .named import arm
from .tuning import AUDIO, CIFAR

AUDIO_METHODS = {"cross-entropy": "CE", "lsr": "LSR", "lsrkd": "LSR-OS", "lsrkd-tc": "LSR-OS-TC", "mrkd": "MrKD"}
_SHOWN = {
    "label_smoothing": ("cross-entropy", "lsr"),
    "teacher_free": ("tf-kd-reg",),
    "lsrkd": ("lsrkd", "lsrkd-tc"),
}
_TIERS = (("cross-entropy", "lsr", "lsrkd", "lsrkd-tc", "tf-kd-reg"),)


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


# What was tried before the preset was fixed: data, network, width, epochs, pixels of crops, learning rate, decay.
_TRIED = (
    ("cifar100", "resnet8", 32, 30, 0, 0.1, 5e-4),
    ("cifar10", "plain_cnn", 32, 30, 2, 0.05, 1e-3),
    ("cifar100", "plain_cnn", 32, 30, 1, 0.05, 1e-3),
    ("cifar100", "plain_cnn", 32, 20, 2, 0.05, 1e-3),
    ("cifar100", "plain_cnn", 32, 20, 1, 0.1, 1e-3),
    ("cifar100", "plain_cnn", 32, 20, 1, 0.1, 4e-3),
    ("cifar100", "plain_cnn", 32, 20, 0, 0.1, 4e-3),
)


def regime_trials() -> dict[str, dict[str, Arm]]:
    """Cross-entropy on 5,000 images in the settings from which the preset's was chosen, with flips."""
    trials = {}
    for data, architecture, width, epochs, padding, rate, decay in _TRIED:
        schedule = Schedule(rate, decay, epochs=epochs, batch_size=64, nesterov=True)
        network, seen = ImageNetwork(architecture, width), Augmentation(padding, flip=True, rotation=0.0)
        tried = Arm(Setting(data, 5000), objective("cross-entropy"), schedule, network, augmentation=seen)
        trials[f"{data} {architecture} {epochs} epochs, crops {padding}, rate {rate:g}, decay {decay:g}"] = tried
    return {"trials": trials}


def regime_grid() -> list[Run]:
    """The runs of `regime_trials`."""
    return [arm.run(TUNING_SEEDS[0]) for arm in regime_trials()["trials"].values()]
