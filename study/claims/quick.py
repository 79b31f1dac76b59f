"""The claims that are tried at the quick preset, live."""

from dataclasses import dataclass

import numpy as np

from lsr_core import statistics
from lsr_core.statistics import Paired

from ..experiments import CLASSES_SETTINGS, DIGITS, MIXTURES, NETWORKS, TAIL_SETTINGS, Results, Setting, arm
from .claim import MULLER, NEIGHBOURS, OWN, SHEN, WANG, YUAN, ZHANG, Claim, Term, pairs, versus

SMALL, LARGE = DIGITS

_SMOOTHING = pairs(
    MULLER,
    "label_smoothing",
    DIGITS,
    ("B1", "LSR beats cross-entropy", "lsr", "cross-entropy", "accuracy", "better"),
    ("M2a", "LSR improves calibration error", "lsr", "cross-entropy", "ece", "better"),
    ("M2b", "LSR improves likelihood beyond one temperature", "lsr", "cross-entropy", "nll_scaled", "better"),
)
_SOFTENING = pairs(
    WANG,
    "lsrkd",
    DIGITS,
    ("W1", "LsrKD beats LSR", "lsrkd", "lsr", "accuracy", "better"),
    ("W4", "teacher correction improves LsrKD", "lsrkd-tc", "lsrkd", "accuracy", "better"),
    ("W7", "LsrKD-TC is comparable to LSR or better", "lsrkd-tc", "lsr", "accuracy", "comparable or better"),
)
_OTHERS = [network for network in NETWORKS if network != "64-64"]


def _carried(method: str, control: str) -> tuple[Term, ...]:
    """The mean over the networks that nothing was tuned on."""
    return tuple(
        (weight / len(_OTHERS), SMALL, f"carried/{name}/{network}")
        for weight, name in ((1, method), (-1, control))
        for network in _OTHERS
    )


_CARRIED = [
    Claim(
        "W2-100",
        WANG,
        f"LsrKD beats LSR on the network on which LSR gained least in tuning (perceptron 32, {SMALL})",
        "once_tuned",
        versus(SMALL, "carried/lsrkd/32", "carried/lsr/32"),
    ),
    Claim(
        "W10-100",
        WANG,
        f"LSR-OS-TC tuned on one network is comparable to LSR or better on five others ({SMALL})",
        "once_tuned",
        _carried("lsrkd-tc", "lsr"),
        kind="comparable or better",
    ),
    Claim(
        "W11-100",
        WANG,
        f"tuned on one network, LSR-OS-TC beats Tf-KD_reg on five others ({SMALL})",
        "once_tuned",
        _carried("lsrkd-tc", "tf-kd-reg"),
    ),
]
_REPLAY = pairs(
    WANG,
    "mrkd",
    [SMALL],
    ("W5", "MrKD beats cross-entropy", "mrkd", "cross-entropy", "accuracy", "better"),
    ("W6", "teacher correction improves MrKD", "mrkd-tc", "mrkd", "accuracy", "better"),
    ("W7m", "MrKD is comparable to LSR or better", "mrkd", "lsr", "accuracy", "comparable or better"),
    (
        "W8",
        "MrKD stays nearer to its past outputs than cross-entropy",
        "mrkd",
        "cross-entropy",
        "output_drift",
        "better",
    ),
    ("W9", "MrKD finds a flatter minimum than cross-entropy", "mrkd", "cross-entropy", "sharpness", "better"),
    ("W13", "the learned ensemble beats the mean of copies", "mrkd-fcn", "mrkd", "accuracy", "better"),
    ("W14", "knowledge adjustment improves the learned ensemble", "mrkd-fcn-ka", "mrkd-fcn", "accuracy", "better"),
)
_TEACHERS = pairs(
    YUAN,
    "weak_teachers",
    [SMALL, MIXTURES[1]],
    ("Y1", "a weaker teacher beats cross-entropy (Re-KD)", "re-kd", "cross-entropy", "accuracy", "better"),
    ("Y2", "a badly trained teacher beats cross-entropy (De-KD)", "de-kd", "cross-entropy", "accuracy", "better"),
)
STAGES = (1, 2, 3, 5, 10, 20, 40, 60)


def _slope(results: Results, setting: Setting) -> np.ndarray:
    """Seed by seed, how many points the student gains for ten points of its teacher's accuracy, over all stages."""
    teachers, students = (
        np.stack([100 * results.values(arm(setting, f"{kind}/{stage}"), "accuracy") for stage in STAGES])
        for kind in ("stage", "staged")
    )
    centred = teachers - teachers.mean(0)
    return 10 * (centred * students).sum(0) / (centred**2).sum(0)


_STAGES = [
    Claim(
        "Y3-100",
        YUAN,
        f"the student's gain is flat in the teacher's accuracy, per 10 points ({SMALL})",
        "weak_teachers",
        tuple((1, SMALL, f"{kind}/{stage}") for kind in ("stage", "staged") for stage in STAGES),
        kind="comparable",
        estimator=_slope,
    )
]
_VIRTUAL = pairs(
    YUAN,
    "teacher_free",
    [SMALL],
    ("Y6", "Tf-KD_self beats cross-entropy", "tf-kd-self", "cross-entropy", "accuracy", "better"),
    ("Y7", "Tf-KD_self is comparable to KD from a stronger teacher", "tf-kd-self", "kd", "accuracy", "comparable"),
    ("Y8", "Tf-KD_reg beats cross-entropy", "tf-kd-reg", "cross-entropy", "accuracy", "better"),
    ("Y9", "Tf-KD_reg beats LSR", "tf-kd-reg", "lsr", "accuracy", "better"),
    ("Y10", "Tf-KD_reg is comparable to KD", "tf-kd-reg", "kd", "accuracy", "comparable"),
)
_SCALED, _WHOLE = "scale 0.0595, decay on all layers", "scale 1, decay on all layers"
_LOSS_SCALE = pairs(
    YUAN,
    "teacher_free",
    [LARGE],
    (
        "Y12a",
        "the released ε and loss scale together beat cross-entropy, convnet",
        f"cell/lsr, {_SCALED}",
        f"cell/cross-entropy, {_WHOLE}",
        "accuracy",
        "better",
    ),
    (
        "Y12b",
        "the released ε alone beats the released loss scale alone, convnet",
        f"cell/lsr, {_WHOLE}",
        f"cell/cross-entropy, {_SCALED}",
        "accuracy",
        "better",
    ),
)
_GENERATIONS = pairs(
    ZHANG,
    "generations",
    [SMALL],
    ("Z1", "self-distillation beats generation 0", "generation-1", "generation-0", "accuracy", "better"),
    ("Z2", "the third generation adds to the first", "generation-3", "generation-1", "accuracy", "better"),
    (
        "Z3",
        "diversity rises from the first to the third generation",
        "generation-3",
        "generation-1",
        "diversity",
        "better",
    ),
    ("Z5a", "LSR raises predictive uncertainty", "lsr", "cross-entropy", "uncertainty", "better"),
    ("Z5b", "LSR leaves confidence diversity alone", "lsr", "cross-entropy", "diversity", "comparable"),
)


def _gain_with_diversity(results: Results, setting: Setting) -> Paired:
    """Across seeds, the first generation's gain with its teacher's diversity, given the teacher's uncertainty.

    Given the teacher's accuracy too: the gain is over the teacher, so that a lucky teacher has little to give.
    """
    student, taught = (arm(setting, f"generation-{number}") for number in (1, 0))
    diversity, uncertainty, accuracy = (
        results.values(taught, metric) for metric in ("diversity", "uncertainty", "accuracy")
    )
    gain = results.differences(student, taught, "accuracy")
    known = np.isfinite([gain, diversity, uncertainty, accuracy]).all(0)
    return statistics.association(gain[known], diversity[known], [uncertainty[known], accuracy[known]])


_ASSOCIATED = [
    Claim(
        "Z4-100",
        ZHANG,
        f"the gain goes with the teacher's diversity, given its uncertainty and accuracy ({SMALL})",
        "generations",
        versus(SMALL, "generation-1", "generation-0"),
        "association",
        estimator=_gain_with_diversity,
    )
]
_INSTANCES = [
    *pairs(
        ZHANG,
        "instance_smoothing",
        [SMALL],
        ("Z6", "Beta smoothing beats LSR", "beta-smoothing", "lsr", "accuracy", "better"),
        ("Z7", "Beta smoothing is below self-distillation", "generation-1", "beta-smoothing", "accuracy", "better"),
        (
            "Z9a",
            "draws matched by rank beat the same draws in random order",
            "beta-smoothing",
            "beta-smoothing-shuffled",
            "accuracy",
            "better",
        ),
        (
            "Z9b",
            "draws matched by rank beat their constant mean",
            "beta-smoothing",
            "beta-smoothing-constant",
            "accuracy",
            "better",
        ),
    ),
    *pairs(
        NEIGHBOURS,
        "instance_smoothing",
        [SMALL],
        ("L1", "Zipf's label smoothing beats LSR", "zipf", "lsr", "accuracy", "better"),
        ("K1", "PS-KD beats cross-entropy", "ps-kd", "cross-entropy", "accuracy", "better"),
        ("K2", "PS-KD beats LSR", "ps-kd", "lsr", "accuracy", "better"),
    ),
]
_ERASED = pairs(
    SHEN,
    "erased_information",
    [SMALL],
    ("S1a", "LSR lowers 1 − S, read as printed", "lsr", "cross-entropy", "erased_vector", "better"),
    ("S1b", "LSR lowers 1 − S, read as a standard deviation", "lsr", "cross-entropy", "erased_std", "better"),
    ("S2", "erasure remains at equal confidence", "lsr", "cross-entropy", "erased_vector_matched", "better"),
    ("S9", "longer training erases too", "long/cross-entropy", "cross-entropy", "erased_std", "better"),
)
_CLUSTERS = pairs(
    SHEN,
    "erased_information",
    [MIXTURES[1]],
    (
        "S3",
        "LSR moves the clusters of similar classes apart",
        "lsr",
        "cross-entropy",
        "similar_distance",
        "better",
    ),
)


def _nearer_to_log_2(results: Results, setting: Setting) -> np.ndarray:
    """How much nearer to log 2 label smoothing takes the mutual information than cross-entropy does."""
    smoothed, plain = (results.values(arm(setting, name), "information") for name in ("lsr", "cross-entropy"))
    return abs(plain - np.log(2)) - abs(smoothed - np.log(2))


_INFORMATION = [
    Claim(
        "M3-100",
        MULLER,
        f"LSR takes the information between image and logits towards log 2 ({SMALL})",
        "erased_information",
        versus(SMALL, "lsr", "cross-entropy"),
        "information",
        estimator=_nearer_to_log_2,
    )
]
_BETTER_TEACHER = pairs(
    SHEN,
    "weak_teachers",
    [SMALL, MIXTURES[1]],
    ("S6", "a better teacher makes a better student", "kd", "re-kd", "accuracy", "better"),
)
_SMOOTHED_TEACHERS = [
    *pairs(
        SHEN,
        "smoothed_teachers",
        [SMALL],
        (
            "S4",
            "a smoothed teacher's student is no worse (T = 1, soft labels alone)",
            "taught/0.1/1",
            "taught/0/1",
            "accuracy",
            "comparable or better",
        ),
        ("S5", "its training loss is higher", "taught/0/1", "taught/0.1/1", "train_nll", "better"),
    ),
    *pairs(
        NEIGHBOURS,
        "smoothed_teachers",
        [SMALL],
        ("M1", "a smoothed teacher makes a worse student (T = 1)", "taught/0/1", "taught/0.1/1", "accuracy", "better"),
        ("C2", "with a smoothed teacher, T = 1 beats T = 4", "taught/0.1/1", "taught/0.1/4", "accuracy", "better"),
    ),
    Claim(
        "C1-100",
        NEIGHBOURS,
        f"a smoothed teacher is worth less at T = 4 than at T = 1 ({SMALL})",
        "smoothed_teachers",
        ((1, SMALL, "taught/0.1/1"), (-1, SMALL, "taught/0/1"), (-1, SMALL, "taught/0.1/4"), (1, SMALL, "taught/0/4")),
    ),
]


def _gain_falls(name: str, text: str, first: Setting, last: Setting) -> Claim:
    """LSR's gain (ε = .1, the schedule unchanged) is larger in the first setting than in the last."""
    gain = [(sign * w, s, f"fixed/lsr/{e}") for sign, s in ((1, first), (-1, last)) for w, e in ((1, "0.1"), (-1, "0"))]
    return Claim(name, SHEN, text, "tails_and_classes", tuple(gain))


_TAILS = [
    _gain_falls("S7", "LSR's gain falls with imbalance (1 to 20)", TAIL_SETTINGS[0], TAIL_SETTINGS[-1]),
    _gain_falls(
        "S8", "LSR's gain falls with the number of classes (5 to 50)", CLASSES_SETTINGS[0], CLASSES_SETTINGS[-1]
    ),
]
_CONTRASTS = (
    ("class similarity helps (rung 1 − 0)", "ladder-class-means", "ladder-uniform"),
    ("instance confidence helps (rung 2 − 0)", "ladder-confidence", "ladder-uniform"),
    ("dark knowledge helps beyond confidence (rung 4 − 2)", "kd", "ladder-confidence"),
    ("dark knowledge in its right order helps (rung 4 − 3)", "kd", "ladder-permuted"),
)
_LADDER = [
    claim
    for number, (text, method, control) in enumerate(_CONTRASTS, 1)
    for claim in (
        *pairs(OWN, "ladder", [SMALL], (f"O{number}", text, method, control, "accuracy", "better")),
        *pairs(
            OWN,
            "ladder",
            MIXTURES,
            (
                f"O{number + 4}",
                f"{text}, the truth as teacher",
                f"{method}:posterior",
                f"{control}:posterior",
                "accuracy",
                "better",
            ),
            (f"O{number + 4}t", f"{text}, a trained teacher", method, control, "accuracy", "better"),
        ),
    )
] + [
    Claim(
        "O9",
        OWN,
        "dark knowledge (rung 4 − 2) is worth more where labels are uncertain (Bayes accuracy 65 against 95 %)",
        "ladder",
        (
            *versus(MIXTURES[0], "kd:posterior", "ladder-confidence:posterior"),
            (-1, MIXTURES[2], "kd:posterior"),
            (1, MIXTURES[2], "ladder-confidence:posterior"),
        ),
    )
]
_TRUTH = pairs(
    OWN,
    "lsrkd",
    MIXTURES,
    ("P1", "LSR is nearer to the truth than cross-entropy", "lsr", "cross-entropy", "kl_posterior", "better"),
    ("P2", "LSR tells more of the wrong classes than cross-entropy", "lsr", "cross-entropy", "kl_dark", "better"),
)


def _best_over_last(results: Results, setting: Setting) -> np.ndarray:
    """How much the best of the stated epochs flatters the last one, beyond the margin of 0.1 points."""
    curves = [np.array(r.curves["test_accuracy"]) for r in results.records(arm(setting, "cross-entropy"))]
    return np.array([100 * (curve.max() - curve[-1]) - 0.1 for curve in curves])


_HABITS = [
    Claim(
        "O10",
        OWN,
        f"the best of 12 epochs flatters the last by more than 0.1 points ({SMALL})",
        "verdicts",
        ((1, SMALL, "cross-entropy"),),
        "flattery",
        estimator=_best_over_last,
    )
]

CLAIMS: tuple[Claim, ...] = (
    *(
        *_SMOOTHING,
        *_SOFTENING,
        *_CARRIED,
        *_REPLAY,
        *_TEACHERS,
        *_STAGES,
        *_LOSS_SCALE,
        *_VIRTUAL,
        *_GENERATIONS,
        *_ASSOCIATED,
        *_INSTANCES,
    ),
    *(*_ERASED, *_CLUSTERS, *_INFORMATION, *_BETTER_TEACHER, *_SMOOTHED_TEACHERS, *_TAILS, *_LADDER, *_TRUTH, *_HABITS),
)


@dataclass(frozen=True)
class Untested:
    """A claim that no preset can judge, and why."""

    id: str
    paper: str
    text: str
    reason: str


UNTESTED: tuple[Untested, ...] = (
    Untested("W3", WANG, "LsrKD costs nothing", "a ratio of times, measured in the chapter on carried constants"),
    Untested("S11", SHEN, "a smoothed teacher serves binary students", "needs binary networks"),
    Untested("S12", SHEN, "a smoothed teacher serves translation", "needs a translation model"),
)
