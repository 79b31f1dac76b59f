"""The chapters' grids: a line is a dictionary from the constant that varies to its arm."""

from collections.abc import Sequence
from dataclasses import replace

from lsr_core.errors import require

from .arms import Arm, ArmTeacher, Setting
from .named import NETWORKS, arm, generation, with_objective
from .tuning import DIGITS, MIXTURES, tuned


def smoothing_sweep(
    epsilons: Sequence[float], sizes: Sequence[int]
) -> tuple[dict[str, dict[float, Arm]], dict[str, Arm]]:
    """Label smoothing on digits at the baseline's schedule: a line a training-set size, and its cross-entropy.

    A size that was not tuned takes the schedule of the nearest one that was.
    """
    _require_some(epsilons=epsilons, sizes=sizes)
    controls = {}
    for size in sizes:
        nearest = min(DIGITS, key=lambda setting: abs(setting.train - size))
        controls[f"n = {size}"] = replace(tuned(nearest, "cross-entropy"), setting=Setting("digits", size))
    lines = {
        name: {epsilon: with_objective(control, "lsr", epsilon=epsilon) for epsilon in epsilons}
        for name, control in controls.items()
    }
    return lines, controls


def softening_grid(
    setting: Setting, temperatures: Sequence[float], alphas: Sequence[float]
) -> dict[str, dict[float, Arm]]:
    """LsrKD at the baseline's schedule: a line a temperature, over α. At τ = 1 it is label smoothing."""
    _require_some(temperatures=temperatures, alphas=alphas)
    baseline = tuned(setting, "cross-entropy")
    return {
        f"τ = {tau:g}": {alpha: with_objective(baseline, "lsrkd", alpha=alpha, temperature=tau) for alpha in alphas}
        for tau in temperatures
    }


def correction_sweeps(
    setting: Setting, temperatures: Sequence[float], gaps: Sequence[float], shares: Sequence[float]
) -> tuple[dict[str, dict[float, Arm]], dict[str, dict[float, Arm]], dict[str, Arm]]:
    """Teacher correction by target gap and by constant share, at the tuned LsrKD's α: a line a temperature.

    Returns the lines over gaps, the lines over shares, and each temperature's uncorrected LsrKD.
    """
    _require_some(temperatures=temperatures, gaps=gaps, shares=shares)
    chosen = tuned(setting, "lsrkd")
    alpha = chosen.objective.alpha
    by_gap, by_share, controls = {}, {}, {}
    for tau in temperatures:
        name, common = f"τ = {tau:g}", {"alpha": alpha, "temperature": tau}
        controls[name] = with_objective(chosen, "lsrkd", **common)
        by_gap[name] = {gap: with_objective(chosen, "lsrkd-tc", **common, gap=gap) for gap in gaps}
        by_share[name] = {share: with_objective(chosen, "lsrkd-tc-share", **common, share=share) for share in shares}
    return by_gap, by_share, controls


RUNGS = {
    "0 uniform": "ladder-uniform",
    "1 class means": "ladder-class-means",
    "2 confidence": "ladder-confidence",
    "3 permuted": "ladder-permuted",
    "4 teacher": "kd",
}


def rungs(setting: Setting, teacher_name: str = "strong") -> dict[str, Arm]:
    """The tuned baseline, tuned label smoothing, and the five tuned rungs from one teacher: `strong` or `posterior`."""
    suffix = ":posterior" if teacher_name == "posterior" else ""
    arms = {label: tuned(setting, method + suffix) for label, method in RUNGS.items()}
    return {"cross-entropy": tuned(setting, "cross-entropy"), "lsr": tuned(setting, "lsr"), **arms}


def ladders() -> tuple[dict[str, dict[str, Arm]], dict[str, dict[str, Arm]]]:
    """The ladders of the first page that are run live: of a trained teacher on digits, of the truth on the mixtures."""
    truth = {f"Bayes accuracy {s.data.rpartition('-')[2]} %, the truth": rungs(s, "posterior") for s in MIXTURES}
    return {"digits, a trained teacher": rungs(DIGITS[0])}, truth


def distillation_grid(
    setting: Setting, temperatures: Sequence[float], alphas: Sequence[float]
) -> dict[str, dict[float, Arm]]:
    """Distillation from the strong teacher at the tuned schedule: a line a temperature, over α."""
    _require_some(temperatures=temperatures, alphas=alphas)
    chosen = tuned(setting, "kd")
    return {
        f"τ = {tau:g}": {alpha: with_objective(chosen, "kd", alpha=alpha, temperature=tau) for alpha in alphas}
        for tau in temperatures
    }


def teacher_stages(setting: Setting, epochs: Sequence[int]) -> tuple[dict[str, dict[float, Arm]], dict[float, Arm]]:
    """Students of the strong teacher at every stage of its training: lines for rungs 0, 3 and 4, over its epoch.

    Constants and schedule are the tuned De-KD's. Returns the teacher at each stage, a stopped run, too.
    """
    _require_some(epochs=epochs)
    chosen = tuned(setting, "de-kd")
    stages = {epoch: arm(setting, f"stage/{epoch}") for epoch in epochs}
    constants = {"alpha": chosen.objective.alpha, "temperature": chosen.objective.temperature}
    lines = {
        label: {
            epoch: replace(with_objective(chosen, RUNGS[label], **constants), teacher=ArmTeacher(stage))
            for epoch, stage in stages.items()
        }
        for label in ("0 uniform", "3 permuted", "4 teacher")
    }
    return lines, stages


def replay_grid(setting: Setting, copies: Sequence[int], every: Sequence[int]) -> dict[str, dict[float, Arm]]:
    """Memory replay at its tuned constants: a line a number of copies, over the epochs between them."""
    _require_some(copies=copies, every=every)
    chosen = tuned(setting, "mrkd")
    constants = {"alpha": chosen.objective.alpha, "temperature": chosen.objective.temperature}
    return {
        f"n = {n}": {kappa: with_objective(chosen, "mrkd", **constants, copies=n, every=kappa) for kappa in every}
        for n in copies
    }


def early_teachers(setting: Setting, epochs: Sequence[int]) -> dict[str, dict[float, Arm]]:
    """Self-distillation from generation 0 after fewer epochs than it has: one line over the teacher's epoch."""
    _require_some(epochs=epochs)
    first = generation(setting, 1)
    stopped = {epoch: replace(first, teacher=ArmTeacher(first.teacher.arm, epoch)) for epoch in epochs}
    return {"generation 1": stopped}


def beta_grid(setting: Setting, alphas: Sequence[float], shapes: Sequence[float]) -> dict[str, dict[float, Arm]]:
    """Beta smoothing and its two controls at equal constants and schedule: a line an arm and shape a, over α."""
    _require_some(alphas=alphas, shapes=shapes)
    chosen = tuned(setting, "beta-smoothing")
    arms = {"ranked": "beta-smoothing", "shuffled": "beta-smoothing-shuffled", "constant": "beta-smoothing-constant"}
    return {
        f"{label}, a = {a:g}": {
            alpha: with_objective(
                chosen, method, alpha=alpha, a=a, **({"decay": chosen.objective.decay} if label == "ranked" else {})
            )
            for alpha in alphas
        }
        for a in shapes
        for label, method in arms.items()
    }


def taught_grid(
    setting: Setting, epsilons: Sequence[float], temperatures: Sequence[float]
) -> tuple[dict[str, dict[float, Arm]], dict[str, Arm]]:
    """Students of smoothed teachers by soft labels alone: a line a temperature, over the teacher's ε; its plain one."""
    _require_some(epsilons=epsilons, temperatures=temperatures)
    lines = {
        f"T = {t:g}": {epsilon: arm(setting, f"taught/{epsilon:g}/{t:g}") for epsilon in epsilons} for t in temperatures
    }
    return lines, {f"T = {t:g}": arm(setting, f"taught/0/{t:g}") for t in temperatures}


def paced_grid(
    setting: Setting,
    epsilon: float,
    temperatures: Sequence[float],
    rates: Sequence[float],
    decay: float | None = None,
) -> dict[tuple[str, float], dict[str, Arm]]:
    """Students by soft labels alone of a smoothed and of a plain teacher, by temperature and learning rate.

    The weight decay is the tuned one where none is given.
    """
    _require_some(temperatures=temperatures, rates=rates)
    last = "" if decay is None else f"/{decay:g}"
    return {
        (f"T = {t:g}", rate): {
            name: arm(setting, f"taught/{smoothing:g}/{t:g}/{rate:g}{last}")
            for name, smoothing in (("smoothed", epsilon), ("plain", 0))
        }
        for t in temperatures
        for rate in rates
    }


def smoothing_by_setting(
    settings: Sequence[Setting], epsilons: Sequence[float]
) -> tuple[dict[str, dict[float, Arm]], dict[str, Arm]]:
    """Label smoothing at the schedule of the nearest tuned setting: a line a setting, over ε; its cross-entropy."""
    _require_some(epsilons=epsilons)
    lines = {str(s): {epsilon: arm(s, f"fixed/lsr/{epsilon:g}") for epsilon in epsilons} for s in settings}
    return lines, {str(s): arm(s, "fixed/lsr/0") for s in settings}


def carried(setting: Setting, methods: Sequence[str]) -> tuple[dict[str, dict[str, Arm]], dict[str, Arm]]:
    """Tuned once, used everywhere: each method's constants of the 64-64 perceptron on other networks.

    A line a method, over networks; and each network's cross-entropy, at the same schedule.
    """
    lines = {
        method: {network: arm(setting, f"carried/{method}/{network}") for network in NETWORKS} for method in methods
    }
    return lines, {network: arm(setting, f"carried/cross-entropy/{network}") for network in NETWORKS}


def tuned_arms(settings: Sequence[Setting], methods: Sequence[str]) -> dict[str, dict[str, Arm]]:
    """Each method's tuned arm: a line a method, over settings."""
    return {method: {str(setting): tuned(setting, method) for setting in settings} for method in methods}


def _require_some(**lists: Sequence[float]) -> None:
    for name, values in lists.items():
        some = isinstance(values, Sequence) and not isinstance(values, str) and len(values) > 0
        require(some, f"{name} is {values!r}; give a list of at least one number")
        for value in values:
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            require(number, f"{name} holds {value!r}; give numbers")
