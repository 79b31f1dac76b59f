"""The claims that are judged from the desktop preset's published records, at most six a family."""

from dataclasses import replace

from ..experiments import AUDIO, CIFAR, Setting
from .claim import WANG, Claim
from .quick import CLAIMS

_ON_IMAGES = (
    *("B1", "M2a", "M2b"),
    *("Y1", "Y2", "Y6", "Y8", "Y9", "Y10"),
    *("W1", "W4", "W7", "W5", "W6"),
    *("S1a", "S1b", "S2", "S6", "S4", "S5"),
    *("Z1", "Z2", "Z3", "Z5a", "Z6", "Z7"),
    *("L1", "M1", "C2", "C1"),
    *("O1", "O2", "O3", "O4"),
)


def _elsewhere(name: str, setting: Setting) -> Claim:
    """A claim of the quick preset in another setting."""
    claim = next(claim for claim in CLAIMS if claim.id.partition("-")[0] == name)
    return replace(
        claim,
        id=f"{name}-{setting.data}",
        text=claim.text.replace(str(claim.setting), str(setting)),
        terms=tuple((weight, setting, arm) for weight, _, arm in claim.terms),
    )


_AUDIO = Claim(
    "W12-audio",
    WANG,
    "LSR-OS-TC beats LSR on audio (GTZAN, the mean of five folds)",
    "lsrkd",
    tuple((sign / len(AUDIO), setting, name) for sign, name in ((1, "lsrkd-tc"), (-1, "lsr")) for setting in AUDIO),
)

DESKTOP: tuple[Claim, ...] = (*(_elsewhere(name, CIFAR) for name in _ON_IMAGES), _AUDIO)
