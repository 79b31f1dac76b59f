"""Arms: what is compared, as templates of runs. The tuned methods, and their variants and grids."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from lsr_core.errors import require
from lsr_core.models import Convnet, Perceptron, Transformer
from lsr_core.objectives import objective
from lsr_core.run import Run, TrainedTeacher
from lsr_core.schedule import Schedule

from .settings import CIFAR_5K, DIGITS, MIXTURES, Setting
from .tuning import protocol, teacher_of, tuned

Lines = dict[str, dict[float, Run]]  # by a line's name, from the constant that varies to its arm

# The tuned network first. "32" was chosen on the tuning seeds' validation images, as the one on which label smoothing
# gained least. It and "64-64-64" replaced two deeper networks, which did not train, after those had been run.
NETWORKS = {
    "64-64": Perceptron(),
    "16": Perceptron((16,)),
    "32": Perceptron((32,)),
    "256": Perceptron((256,)),
    "256-256": Perceptron((256, 256)),
    "64-64-64": Perceptron((64, 64, 64)),
}
RUNGS = {
    "0 uniform": "ladder-uniform",
    "1 class means": "ladder-class-means",
    "2 confidence": "ladder-confidence",
    "3 permuted": "ladder-permuted",
    "4 teacher": "kd",
}
_SYMBOLS = {"temperature": "τ"}


def arm_of(call: Mapping[str, Any], setting: Setting, **more: str) -> Run:
    """The arm that a function of this module gives: its name, with its one argument or a table of them."""
    ((function, given),) = call.items()
    make = globals()[function]
    return make(setting, **given, **more) if isinstance(given, Mapping) else make(setting, given)


def with_objective(arm: Run, method: str, **constants: float) -> Run:
    """The same arm with another objective."""
    return replace(arm, objective=objective(method, **constants))


def generation(setting: Setting, number: int) -> Run:
    """A generation of self-distillation in its released form: its teacher is the one before, 0 is cross-entropy."""
    require(number >= 0, f"generation is {number}; generations are counted from 0")
    role = f"generation-{number}"
    if number == 0:
        return replace(tuned(setting, "cross-entropy"), role=role)
    teacher = TrainedTeacher(generation(setting, number - 1))
    return replace(tuned(setting, "self-distillation-released"), role=role, teacher=teacher)


def student_of_generation(setting: Setting, number: int) -> Run:
    """The next generation's student with the streams of every student, so that it is paired with cross-entropy's."""
    return replace(generation(setting, number + 1), role="student")


def trained_longer(setting: Setting, method: str) -> Run:
    """A tuned method, trained for four times as many epochs."""
    chosen = tuned(setting, method)
    return replace(chosen, schedule=replace(chosen.schedule, epochs=4 * chosen.schedule.epochs))


def label_smoothing(setting: Setting, epsilon: float) -> Run:
    """Label smoothing at the schedule of the nearest tuned baseline; with ε = 0 it is cross-entropy."""
    base = setting.data.partition("/")[0]
    near = [tried for tried in (*DIGITS, *MIXTURES) if tried.data == base] or [MIXTURES[1]]
    baseline = tuned(min(near, key=lambda tried: abs(tried.train - setting.train)), "cross-entropy")
    smoothed = with_objective(baseline, "lsr", epsilon=epsilon) if epsilon else baseline
    return replace(smoothed, data=setting.data, train=setting.train)


def transferred(setting: Setting, method: str, network: str) -> Run:
    """A method with its tuned constants on another of `NETWORKS`."""
    return replace(tuned(setting, method), network=NETWORKS[network])


def carried(setting: Setting, method: str) -> Run:
    """A method with the constants that were tuned on 100 digits for the perceptron 64-64, as they are.

    The schedule is that of the baseline as it is tuned here.
    """
    return replace(tuned(setting, "cross-entropy"), objective=tuned(DIGITS[0], method).objective)


def at_constants(setting: Setting, method: str, **constants: float) -> Run:
    """A method with these constants, which are not tuned, at the schedule of the tuned baseline."""
    return with_objective(tuned(setting, "cross-entropy"), method, **constants)


def student_at(setting: Setting, kind: str, method: str, epoch: int | None = None, **constants: float) -> Run:
    """A method with these constants, which are not tuned, whose teacher is of this kind, after an epoch or the last."""
    teacher = replace(teacher_of(setting, kind), epoch=epoch)
    return replace(tuned(setting, "cross-entropy"), objective=objective(method, **constants), teacher=teacher)


def from_cifar100(setting: Setting, **call: Any) -> Run:
    """An arm that the study `cifar100-5k` tunes, given by its call, on other images; so is its teacher."""

    def elsewhere(arm: Run) -> Run:
        needed = {name: getattr(arm, name) for name in ("teacher", "initial")}
        there = {name: trained and replace(trained, run=elsewhere(trained.run)) for name, trained in needed.items()}
        return replace(arm, data=setting.data, train=setting.train, **there)

    return elsewhere(arm_of(call, CIFAR_5K))


def from_translations(setting: Setting) -> Run:
    """Cross-entropy on the strong teacher's translations: sequence-level distillation (Kim & Rush 2016)."""
    return replace(tuned(setting, "cross-entropy"), targets=teacher_of(setting, "strong"))


def language_arms(sentences: int) -> dict[str, Run]:
    """Cross-entropy in the made language beside label smoothing, and beside students of a network of the same kind.

    Of word-level distillation a student has its teacher's soft labels, of sequence-level one its translations.
    """
    schedule = Schedule(0.01, epochs=12, batch_size=64, curve="inverse-root", warmup=2, optimizer="adam")
    network = Transformer(width=32, layers=1, heads=2, dropout=0.0)
    plain = Run("language", sentences, objective("cross-entropy"), schedule, network=network)
    teacher = TrainedTeacher(replace(plain, role="teacher"))
    return {
        "cross-entropy": plain,
        "label smoothing": with_objective(plain, "lsr", epsilon=0.1),
        "word-level KD": replace(plain, objective=objective("soft-only", temperature=1.0), teacher=teacher),
        "sequence-level KD": replace(plain, targets=teacher),
    }


def with_weak_network(setting: Setting, **call: Any) -> Run:
    """An arm, given by its call, with the network that is called weak as its student."""
    return replace(arm_of(call, setting), network=protocol(setting).weak)


def in_one_step(setting: Setting, **call: Any) -> Run:
    """An arm, given by its call, with the network that is called weak, as long in one step as the arm is in two."""
    arm = arm_of(call, setting)
    epochs = arm.schedule.epochs + arm.initial.run.schedule.epochs
    schedule = replace(arm.schedule, epochs=epochs)
    return replace(arm, initial=None, schedule=schedule, network=protocol(setting).weak)


def _as_rung(arm: Run, rung: str) -> Run:
    """A rung of the ladder with an arm's constants and schedule."""
    return with_objective(arm, rung, alpha=arm.objective.alpha, temperature=arm.objective.temperature)


def rung_as_kd(setting: Setting, rung: str) -> Run:
    """A rung of the ladder with the constants and the schedule of tuned KD."""
    return _as_rung(tuned(setting, "kd"), rung)


def again(setting: Setting, method: str) -> Run:
    """A tuned method once more, with streams of its own: it differs from the method by luck alone."""
    return replace(tuned(setting, method), role="again")


def teacher_run(setting: Setting, kind: str) -> Run:
    """A trained teacher's own run, by the kind of teacher."""
    return teacher_of(setting, kind).run


def smoothed_teacher(setting: Setting, epsilon: float) -> Run:
    """The strong teacher, trained by label smoothing; with ε = 0 by cross-entropy."""
    plain = teacher_run(setting, "strong")
    return with_objective(plain, "lsr", epsilon=epsilon) if epsilon else plain


def student_of_smoothed_teacher(
    setting: Setting,
    epsilon: float,
    temperature: float,
    learning_rate: float | None = None,
    weight_decay: float | None = None,
) -> Run:
    """A student of a smoothed strong teacher, by soft labels alone; with the tuned schedule where none is given.

    The tuned learning rate is bounded by 0.4/T: the gradient grows with T.
    """
    tuned_student = tuned(setting, "soft-only")
    schedule = tuned_student.schedule
    rate = min(schedule.learning_rate, 0.4 / temperature) if learning_rate is None else learning_rate
    decay = schedule.weight_decay if weight_decay is None else weight_decay
    return replace(
        with_objective(tuned_student, "soft-only", temperature=float(temperature)),
        schedule=replace(schedule, learning_rate=rate, weight_decay=decay),
        teacher=TrainedTeacher(smoothed_teacher(setting, epsilon)),
    )


def student_of_stage(setting: Setting, epoch: int) -> Run:
    """A student with the constants of tuned De-KD; its strong teacher was stopped after so many epochs."""
    strong = teacher_run(setting, "strong")
    stopped = replace(strong, schedule=replace(strong.schedule, stop=epoch))
    return replace(tuned(setting, "de-kd"), teacher=TrainedTeacher(stopped))


# By cross-entropy's validation accuracy on 300 digits, eight tuning seeds, of rates .1, .4, 1.6 and decays 1e-3, 5e-3,
# 2e-2. At the perceptron's schedule the scaled loss did not fit its training images.
_OF_CONVNET = Schedule(0.4, 1e-3)


def loss_scale_arm(
    setting: Setting, method: str, scale: float = 1.0, epsilon: float = 0.16, decay_on: str = "all layers"
) -> Run:
    """Cross-entropy or LSR on the BatchNorm convnet, its loss scaled, with decay on `all layers` or the `head alone`.

    A loss scaled by s is the learning rate times s with the decay over s, exactly; that is how it is trained.
    """
    decay = _OF_CONVNET.weight_decay / scale
    schedule = replace(
        _OF_CONVNET,
        learning_rate=scale * _OF_CONVNET.learning_rate,
        weight_decay=decay if decay_on == "all layers" else 0.0,
        head_decay=decay,
    )
    arm = with_objective(tuned(setting, "cross-entropy"), method, **({"epsilon": epsilon} if method == "lsr" else {}))
    return replace(arm, schedule=schedule, network=Convnet())


def loss_scale_arms(setting: Setting, scale: float, epsilon: float) -> dict[str, Run]:
    """The eight cells: both methods, at scale 1 and another, with decay on all layers or the head alone."""
    return {
        f"{method}, scale {s:g}, decay on {decay_on}": loss_scale_arm(setting, method, s, epsilon, decay_on)
        for decay_on in ("all layers", "head alone")
        for s in (1.0, scale)
        for method in ("cross-entropy", "lsr")
    }


def grid(
    base: Run, method: str, rows: Mapping[str, Sequence[float]], over: Mapping[str, Sequence[float]], **fixed: float
) -> Lines:
    """An arm with another objective at every pair of two constants: a line a value of one, over those of the other.

    `grid(arm, "lsrkd", rows={"temperature": [1, 4]}, over={"alpha": [0.1]})["τ = 4"][0.1]` has τ = 4 and α = .1.
    The other constants are `fixed`. Raises `InputError` for a list that is empty or holds no numbers.
    """
    require_numbers(**{name if name in ("copies", "every") else f"{name}s": v for name, v in (rows | over).items()})
    ((row, values),), ((name, constants),) = rows.items(), over.items()
    return {
        f"{_SYMBOLS.get(row, row)} = {value:g}": {
            constant: with_objective(base, method, **{row: value, name: constant}, **fixed) for constant in constants
        }
        for value in values
    }


def tuned_arms(settings: Sequence[Setting], methods: Sequence[str]) -> dict[str, dict[str, Run]]:
    """Each method's tuned arm: a line a method, over settings."""
    return {method: {str(setting): tuned(setting, method) for setting in settings} for method in methods}


def smoothing_by_setting(settings: Sequence[Setting], epsilons: Sequence[float]) -> tuple[Lines, dict[str, Run]]:
    """Label smoothing at the schedule of the nearest tuned setting: a line a setting, over ε; its cross-entropy."""
    require_numbers(epsilons=epsilons)
    lines = {str(setting): {epsilon: label_smoothing(setting, epsilon) for epsilon in epsilons} for setting in settings}
    return lines, {str(setting): label_smoothing(setting, 0) for setting in settings}


def rungs(setting: Setting, teacher: str = "strong") -> dict[str, Run]:
    """The tuned baseline, tuned label smoothing, and the five tuned rungs from one teacher: `strong` or `posterior`."""
    suffix = ":posterior" if teacher == "posterior" else ""
    arms = {label: tuned(setting, method + suffix) for label, method in RUNGS.items()}
    return {"cross-entropy": tuned(setting, "cross-entropy"), "lsr": tuned(setting, "lsr"), **arms}


def ladders() -> tuple[dict[str, dict[str, Run]], dict[str, dict[str, Run]]]:
    """The ladders of the first page that are run live: of a trained teacher on digits, of the truth on the mixtures."""
    truth = {f"Bayes accuracy {s.data.rpartition('-')[2]} %, the truth": rungs(s, "posterior") for s in MIXTURES}
    return {"digits, a trained teacher": rungs(DIGITS[0])}, truth


def teacher_stages(setting: Setting, epochs: Sequence[int]) -> tuple[Lines, dict[float, Run]]:
    """Students of the strong teacher at every stage of its training: lines for rungs 0, 3 and 4, over its epoch.

    Constants and schedule are the tuned De-KD's. Returns the teacher at each stage, a stopped run, too.
    """
    require_numbers(epochs=epochs)
    students = {epoch: student_of_stage(setting, epoch) for epoch in epochs}
    lines = {
        label: {epoch: _as_rung(arm, RUNGS[label]) for epoch, arm in students.items()}
        for label in ("0 uniform", "3 permuted", "4 teacher")
    }
    return lines, {epoch: arm.teacher.run for epoch, arm in students.items()}


def beta_grid(setting: Setting, alphas: Sequence[float], shapes: Sequence[float]) -> Lines:
    """Beta smoothing and its two controls at equal constants and schedule: a line an arm and shape a, over α."""
    require_numbers(alphas=alphas, shapes=shapes)
    chosen = tuned(setting, "beta-smoothing")
    controls = {"shuffled": "beta-smoothing-shuffled", "constant": "beta-smoothing-constant"}
    arms = {"ranked": ("beta-smoothing", {"decay": chosen.objective.decay})} | {
        label: (method, {}) for label, method in controls.items()
    }
    return {
        f"{label}, a = {a:g}": {alpha: with_objective(chosen, method, alpha=alpha, a=a, **own) for alpha in alphas}
        for a in shapes
        for label, (method, own) in arms.items()
    }


def smoothed_teacher_grid(
    setting: Setting,
    epsilon: float,
    temperatures: Sequence[float],
    rates: Sequence[float],
    decay: float | None = None,
) -> dict[tuple[str, float], dict[str, Run]]:
    """Students by soft labels alone of a smoothed and of a plain teacher, by temperature and learning rate.

    The weight decay is the tuned one where none is given.
    """
    require_numbers(temperatures=temperatures, rates=rates)
    return {
        (f"T = {t:g}", rate): {
            name: student_of_smoothed_teacher(setting, smoothing, t, rate, decay)
            for name, smoothing in (("smoothed", epsilon), ("plain", 0))
        }
        for t in temperatures
        for rate in rates
    }


def require_numbers(**lists: Sequence[float]) -> None:
    """Raise `InputError` unless each of the lists, given by its name, holds at least one number and nothing else."""
    for name, values in lists.items():
        some = isinstance(values, Sequence) and not isinstance(values, str) and len(values) > 0
        require(some, f"{name} is {values!r}; give a list of at least one number")
        for value in values:
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            require(number, f"{name} holds {value!r}; give numbers")
