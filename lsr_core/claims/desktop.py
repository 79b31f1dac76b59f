"""The claims that are judged from the desktop preset's published records, at most six a family."""

from ..experiments import AUDIO, CIFAR
from .claim import MULLER, NEIGHBOURS, SHEN, WANG, YUAN, ZHANG, Claim, pairs

_CIFAR = (
    *pairs(
        MULLER,
        "label_smoothing",
        [CIFAR],
        ("B1", "LSR beats cross-entropy", "lsr", "cross-entropy", "accuracy", "better"),
        ("M2a", "LSR improves calibration error", "lsr", "cross-entropy", "ece", "better"),
        ("M2b", "LSR improves likelihood beyond one temperature", "lsr", "cross-entropy", "nll_scaled", "better"),
    ),
    *pairs(
        YUAN,
        "weak_teachers",
        [CIFAR],
        ("Y1", "a weaker teacher beats cross-entropy (Re-KD)", "re-kd", "cross-entropy", "accuracy", "better"),
        ("Y2", "a badly trained teacher beats cross-entropy (De-KD)", "de-kd", "cross-entropy", "accuracy", "better"),
    ),
    *pairs(
        YUAN,
        "teacher_free",
        [CIFAR],
        ("Y6", "Tf-KD_self beats cross-entropy", "tf-kd-self", "cross-entropy", "accuracy", "better"),
        ("Y8", "Tf-KD_reg beats cross-entropy", "tf-kd-reg", "cross-entropy", "accuracy", "better"),
        ("Y9", "Tf-KD_reg beats LSR", "tf-kd-reg", "lsr", "accuracy", "better"),
        ("Y10", "Tf-KD_reg is comparable to KD", "tf-kd-reg", "kd", "accuracy", "comparable"),
    ),
    *pairs(
        WANG,
        "lsrkd",
        [CIFAR],
        ("W1", "LsrKD beats LSR", "lsrkd", "lsr", "accuracy", "better"),
        ("W4", "teacher correction improves LsrKD", "lsrkd-tc", "lsrkd", "accuracy", "better"),
        ("W7", "LsrKD-TC is comparable to LSR or better", "lsrkd-tc", "lsr", "accuracy", "comparable or better"),
    ),
    *pairs(
        WANG,
        "mrkd",
        [CIFAR],
        ("W5", "MrKD beats cross-entropy", "mrkd", "cross-entropy", "accuracy", "better"),
        ("W6", "teacher correction improves MrKD", "mrkd-tc", "mrkd", "accuracy", "better"),
    ),
    *pairs(
        SHEN,
        "erased_information",
        [CIFAR],
        ("S1a", "LSR lowers 1 − S, read as printed", "lsr", "cross-entropy", "erased_vector", "better"),
        ("S1b", "LSR lowers 1 − S, read as a standard deviation", "lsr", "cross-entropy", "erased_std", "better"),
        ("S2", "erasure remains at equal confidence", "lsr", "cross-entropy", "erased_vector_matched", "better"),
    ),
    *pairs(
        SHEN,
        "weak_teachers",
        [CIFAR],
        ("S6", "a better teacher makes a better student", "kd", "re-kd", "accuracy", "better"),
    ),
    *pairs(
        ZHANG,
        "generations",
        [CIFAR],
        ("Z5a", "LSR raises predictive uncertainty", "lsr", "cross-entropy", "uncertainty", "better"),
    ),
    *pairs(
        ZHANG,
        "instance_smoothing",
        [CIFAR],
        ("Z6", "Beta smoothing beats LSR", "beta-smoothing", "lsr", "accuracy", "better"),
    ),
    *pairs(
        NEIGHBOURS,
        "instance_smoothing",
        [CIFAR],
        ("L1", "Zipf's label smoothing beats LSR", "zipf", "lsr", "accuracy", "better"),
    ),
)
_AUDIO = Claim(
    "W12-audio",
    WANG,
    "LSR-OS-TC beats LSR on audio (GTZAN, the mean of five folds)",
    "lsrkd",
    tuple((sign / len(AUDIO), setting, name) for sign, name in ((1, "lsrkd-tc"), (-1, "lsr")) for setting in AUDIO),
)

DESKTOP: tuple[Claim, ...] = (*_CIFAR, _AUDIO)
