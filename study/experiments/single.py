"""Single runs of cross-entropy: what was tried before the desktop preset was fixed, and references from outside."""

from lsr_core.augmentation import Augmentation
from lsr_core.data import dataset
from lsr_core.models import ImageNetwork
from lsr_core.objectives import objective
from lsr_core.run import Run
from lsr_core.schedule import Schedule

from .arms import TUNING_SEEDS, Arm, Setting

REFERENCE_SEEDS = range(1)

# On 5,000 images: data, network, width, epochs, pixels of crops, learning rate, decay.
_TRIED = (
    ("cifar100", "resnet8", 32, 30, 0, 0.1, 5e-4),
    ("cifar10", "plain_cnn", 32, 30, 2, 0.05, 1e-3),
    ("cifar100", "plain_cnn", 32, 30, 1, 0.05, 1e-3),
    ("cifar100", "plain_cnn", 32, 20, 2, 0.05, 1e-3),
    ("cifar100", "plain_cnn", 32, 20, 1, 0.1, 1e-3),
    ("cifar100", "plain_cnn", 32, 20, 1, 0.1, 4e-3),
    ("cifar100", "plain_cnn", 32, 20, 0, 0.1, 4e-3),
)
_REFERENCES = (
    ("cifar100", "resnet20", 30, Augmentation(4, flip=True, rotation=0.0)),
    ("fashion_mnist", "resnet8", 10, Augmentation(2, flip=True, rotation=0.0)),
    ("mnist", "resnet8", 5, Augmentation(2, flip=False, rotation=0.0)),
)


def regime_trials() -> dict[str, dict[str, Arm]]:
    """Cross-entropy on 5,000 images in the settings from which the preset's was chosen, with flips."""
    trials = {}
    for data, architecture, width, epochs, padding, rate, decay in _TRIED:
        schedule = Schedule(rate, decay, epochs=epochs, batch_size=64, nesterov=True)
        name = f"{data} {architecture} {epochs} epochs, crops {padding}, rate {rate:g}, decay {decay:g}"
        seen = Augmentation(padding, flip=True, rotation=0.0)
        trials[name] = _plain(Setting(data, 5000), ImageNetwork(architecture, width), schedule, seen)
    return {"trials": trials}


def regime_grid() -> list[Run]:
    """The runs of `regime_trials`."""
    return [arm.run(TUNING_SEEDS[0]) for arm in regime_trials()["trials"].values()]


def references() -> dict[str, dict[str, Arm]]:
    """Cross-entropy on all training images for a few epochs, whose accuracy others have reported often."""
    found = {}
    for data, architecture, epochs, seen in _REFERENCES:
        schedule = Schedule(0.1, 5e-4, epochs=epochs, batch_size=128, nesterov=True)
        arm = _plain(Setting(data, dataset(data).max_train), ImageNetwork(architecture), schedule, seen)
        found[f"{data} {architecture} {epochs} epochs"] = arm
    return {"references": found}


def reference_grid() -> list[Run]:
    """The runs of `references`."""
    return [arm.run(seed) for arm in references()["references"].values() for seed in REFERENCE_SEEDS]


def _plain(setting: Setting, network: ImageNetwork, schedule: Schedule, seen: Augmentation) -> Arm:
    return Arm(setting, objective("cross-entropy"), schedule, network, augmentation=seen)
