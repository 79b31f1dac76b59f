"""Arms by name: the tuned methods, and what is built from them. Claims are written with these names."""

from dataclasses import replace
from functools import cache, partial

from lsr_core.errors import InputError, require
from lsr_core.models import Convnet, Perceptron
from lsr_core.objectives import objective
from lsr_core.schedule import Schedule

from .arms import Arm, ArmTeacher, Setting
from .tuning import METHODS, MIXTURES, SETTINGS, teacher, tuned

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


CLASSES_SETTINGS = tuple(Setting(f"mixture-50-80/first-{classes}", 10 * classes) for classes in (5, 20, 50))
TAIL_SETTINGS = tuple(Setting(f"mixture-10-80/{part}", 300) for part in ("stratified", "tail-5", "tail-20"))


@cache
def arm(setting: Setting, name: str) -> Arm:
    """The arm of this name; raises `InputError` for an unknown one.

    `lsr`, or any of `METHODS`: the tuned method. `generation-2` of self-distillation. `long/lsr`: four times as long.
    `fixed/lsr/0.1`: label smoothing of this ε at the schedule of the nearest tuned setting. `carried/lsr/256`: tuned
    constants on another of `NETWORKS`. `taught/0.1/2`: the student, by soft labels alone at T = 2, of a strong teacher
    trained with ε = .1, at the learning rate .05 `taught/0.1/2/0.05`, and at the weight decay .002 besides
    `taught/0.1/2/0.05/0.002`; `teacher/strong/0.1`: that teacher. `stage/5`: the strong teacher stopped after 5 epochs;
    `staged/5`: its student. `cell/…`: a cell of `loss_scale_arms` by its label.
    """
    kind, *rest = name.split("/")
    if kind in METHODS:
        return tuned(setting, kind)
    makers = {
        **{f"generation-{number}": partial(generation, number=number) for number in range(10)},
        "long": _long,
        "fixed": _fixed,
        "taught": _taught,
        "teacher": _teacher,
        "carried": _carried,
        "stage": _stage,
        "staged": _staged,
        "cell": _cell,
    }
    require(kind in makers, f"unknown arm {name!r}; there are {', '.join(METHODS)}, {', '.join(makers)}")
    try:
        return makers[kind](setting, *rest)
    except InputError:
        raise
    except (TypeError, ValueError, KeyError):  # another number of parts, no number, no such network or cell
        raise InputError(f"arm {name!r} cannot be made; its parts are not those of {kind!r}") from None


def generation(setting: Setting, number: int) -> Arm:
    """A generation of self-distillation in its released form: its teacher is the one before, 0 is cross-entropy."""
    require(number >= 0, f"generation is {number}; generations are counted from 0")
    role = f"generation-{number}"
    if number == 0:
        return replace(tuned(setting, "cross-entropy"), role=role)
    chosen = tuned(setting, "self-distillation-released")
    return replace(chosen, role=role, teacher=ArmTeacher(generation(setting, number - 1)))


def _long(setting: Setting, method: str) -> Arm:
    chosen = tuned(setting, method)
    return replace(chosen, schedule=replace(chosen.schedule, epochs=4 * chosen.schedule.epochs))


def _fixed(setting: Setting, method: str, epsilon: str) -> Arm:
    base = setting.data.partition("/")[0]
    near = [s for s in SETTINGS if s.data == base] or [MIXTURES[1]]
    baseline = tuned(min(near, key=lambda s: abs(s.train - setting.train)), "cross-entropy")
    made = objective(method, epsilon=float(epsilon)) if float(epsilon) else baseline.objective
    return replace(baseline, setting=setting, objective=made)


def _taught(setting: Setting, epsilon: str, temperature: str, rate: str | None = None, decay: str | None = None) -> Arm:
    student, strong = tuned(setting, "soft-only"), _teacher(setting, "strong", epsilon)
    tau = float(temperature)
    schedule = replace(
        student.schedule,
        learning_rate=min(student.schedule.learning_rate, 0.4 / tau) if rate is None else float(rate),
        weight_decay=student.schedule.weight_decay if decay is None else float(decay),
    )
    made = objective("soft-only", temperature=tau)
    return replace(student, objective=made, schedule=schedule, teacher=ArmTeacher(strong))


def _teacher(setting: Setting, name: str, epsilon: str = "0") -> Arm:
    found = teacher(setting, name).arm
    return replace(found, objective=objective("lsr", epsilon=float(epsilon))) if float(epsilon) else found


def _carried(setting: Setting, method: str, network: str) -> Arm:
    return replace(tuned(setting, method), network=NETWORKS[network])


def _cell(setting: Setting, label: str) -> Arm:
    return loss_scale_arms(setting)[label]


def _stage(setting: Setting, epoch: str) -> Arm:
    strong = teacher(setting, "strong").arm
    return replace(strong, schedule=replace(strong.schedule, stop=int(epoch)))


def _staged(setting: Setting, epoch: str) -> Arm:
    return replace(tuned(setting, "de-kd"), teacher=ArmTeacher(_stage(setting, epoch)))


def with_objective(arm: Arm, method: str, **constants: float) -> Arm:
    """The same arm with another objective."""
    return replace(arm, objective=objective(method, **constants))


# By cross-entropy's validation accuracy on 300 digits, eight tuning seeds, of rates .1, .4, 1.6 and decays 1e-3, 5e-3,
# 2e-2. At the perceptron's schedule the scaled loss did not fit its training images.
_OF_CONVNET = Schedule(0.4, 1e-3)


def loss_scale_arms(setting: Setting, scale: float = 0.0595, epsilon: float = 0.16) -> dict[str, Arm]:
    """Cross-entropy and LSR on the BatchNorm convnet, the loss scaled or not, decay on all layers or the head alone.

    A loss scaled by s is the learning rate times s with the decay over s, exactly; that is how it is trained.
    """
    baseline = replace(tuned(setting, "cross-entropy"), schedule=_OF_CONVNET, network=Convnet())
    arms = {}
    for decay_name, decays in (("all layers", (1.0, 1.0)), ("head alone", (0.0, 1.0))):
        for scale_name, s in (("scale 1", 1.0), (f"scale {scale:g}", scale)):
            schedule = baseline.schedule
            own, head = (part * schedule.weight_decay / s for part in decays)
            scaled = replace(schedule, learning_rate=s * schedule.learning_rate, weight_decay=own, head_decay=head)
            for name, method in (("cross-entropy", {}), ("lsr", {"epsilon": epsilon})):
                made = objective(name, **method)
                arms[f"{name}, {scale_name}, decay on {decay_name}"] = replace(
                    baseline, objective=made, schedule=scaled
                )
    return arms
