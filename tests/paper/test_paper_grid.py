"""The paper preset: constants against the papers' own, the order of the grid, and that all of it can be trained."""

import subprocess
import sys
from dataclasses import replace
from itertools import groupby

import numpy as np
import pytest

from lsr_core import InputError, objective
from lsr_core.augmentation import Augmentation
from lsr_core.data import dataset
from lsr_core.execute import execute
from lsr_core.models import ImageNetwork
from lsr_core.models.images import defining_modules
from lsr_core.objectives import describe
from lsr_core.run import TrainedTeacher, run_of
from lsr_core.sweep import write_grid
from study import paper_values
from study.paper.grid import SEEDS, paper_arms, paper_grid
from study.studies import PAPER

DATA = ("cifar100", "cifar10", "tiny_imagenet", "cinic10")
ARMS = {data: paper_arms(data) for data in DATA}
CIFAR100 = ARMS["cifar100"]
CLASSES = {"cifar100": 100, "cifar10": 10, "tiny_imagenet": 200, "cinic10": 10}
SMALL = ("mobilenetv2", "shufflenetv2")
TINIEST = ImageNetwork("plain_cnn", 4)


@pytest.fixture(scope="module")
def grid():
    return paper_grid()


def with_teachers(arms):
    arms = list(arms)
    return {*arms, *(arm.teacher.run for arm in arms if arm.teacher)}


# On CIFAR-100, the weights of the cross-entropy and of the divergence's batch mean: the released configurations' α, τ
# and multiplier m as 1 − α and α τ² m / 100, or α m / 100 for Tf-KD_reg.
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mobilenetv2 tf-kd-reg released", (0.05, 0.0095)),
        ("shufflenetv2 tf-kd-reg released", (0.05, 0.0095)),
        ("resnet18 tf-kd-reg released", (0.9, 0.10)),
        ("googlenet tf-kd-reg released", (0.9, 0.05)),
        ("densenet121 tf-kd-reg released", (0.9, 0.001)),
        ("resnext29 tf-kd-reg released", (0.5, 0.005)),
        ("mobilenetv2 tf-kd-self released", (0.05, 3.8)),
        ("shufflenetv2 tf-kd-self released", (0.05, 3.8)),
        ("resnet18 tf-kd-self released", (0.05, 17.1)),
        ("googlenet tf-kd-self released", (0.6, 80)),
        ("densenet121 tf-kd-self released", (0.1, 180)),
        ("resnext29 tf-kd-self released", (0.1, 360)),
        ("mobilenetv2 <- resnet18, kd released", (0.05, 3.8)),
        ("mobilenetv2 <- resnext29, de-kd released", (0.05, 3.8)),
        ("shufflenetv2 <- densenet121, kd released", (0.05, 3.8)),
        ("resnet18 <- resnet50, kd released", (0.4, 2.4)),
        ("resnet18 <- mobilenetv2, re-kd released", (0.4, 2.4)),
        ("resnet18 <- resnet50, de-kd released", (0.4, 2.4)),
        ("resnet50 <- shufflenetv2, re-kd released", (0.4, 2.4)),
        ("densenet121 <- mobilenetv2, re-kd released", (0.4, 2.4)),
        ("resnext29 <- resnet18, re-kd released", (0.4, 2.4)),
    ],
)
def test_effective_weights_are_those_of_the_released_configurations(name, expected):
    assert CIFAR100[name].objective.weights(100) == pytest.approx(expected, rel=1e-9)


def test_the_released_constants_of_tiny_imagenets_resnet_50_and_the_plain_cnn_are_theirs():
    assert ARMS["tiny_imagenet"]["resnet50 tf-kd-self released"].objective.weights(100) == pytest.approx((0.05, 0.342))
    assert ARMS["cifar10"]["plain_cnn <- resnet18, kd released"].objective.weights(100) == pytest.approx((0.1, 3.6))


@pytest.mark.parametrize("data", DATA)
def test_the_papers_form_and_the_released_one_have_the_same_constants(data):
    """The paper's equations have neither τ² nor a multiplier, and the virtual teacher's share is .99 (section 5)."""
    released = {name for name in ARMS[data] if name.endswith(" released")}
    assert released
    for name in released:
        paper, code = (ARMS[data][form].objective for form in (name.removesuffix(" released"), name))
        assert (paper.alpha, paper.temperature) == (code.alpha, code.temperature)
        assert paper.weights(CLASSES[data]) == (1 - paper.alpha, paper.alpha)
        if "tf-kd-reg" in name:
            assert paper.correct == code.correct == 0.99
            assert (paper.student_temperature, code.student_temperature) == (paper.temperature, 1)


@pytest.mark.parametrize("data", DATA[1:])
def test_a_network_has_one_set_of_constants_on_all_data(data):
    shared = ARMS[data].keys() & CIFAR100.keys()
    assert {"resnet18 lsrkd", "mobilenetv2 tf-kd-reg released"} <= shared
    for name in shared:
        assert ARMS[data][name].objective == CIFAR100[name].objective


@pytest.mark.parametrize("method", ["lsr", "lsrkd", "lsrkd-tc", "mrkd", "mrkd-tc"])
def test_methods_whose_constants_no_source_gives_have_their_defaults_on_all_networks(method):
    own = [arm for name, arm in CIFAR100.items() if name.endswith(f" {method}")]
    assert len(own) == 7
    assert all(describe(arm.objective) == describe(objective(method)) for arm in own)


@pytest.mark.parametrize("data", DATA)
def test_the_protocol_is_the_papers(data):
    tiny = data == "tiny_imagenet"
    drop = 0.1 if tiny else 0.2
    rates = {0: 0, 0.5: 0.5, 1: 1, 59.9: 1, 60: drop, 119.9: drop, 120: drop**2, 160: drop**3, 199.9: drop**3}
    halved = ("resnet50", "densenet121", "resnext29") if tiny else ("googlenet", "resnext29")
    for arm in with_teachers(ARMS[data].values()):
        schedule, batch = arm.schedule, 64 if arm.network.architecture in halved else 128
        assert (schedule.batch_size, schedule.learning_rate) == (batch, 0.1 * batch / 128)
        assert (schedule.epochs, schedule.momentum, schedule.weight_decay) == (200, 0.9, 5e-4)
        assert not schedule.nesterov
        assert [schedule.rate(done) for done in rates] == pytest.approx(list(rates.values()))
        assert (arm.data, arm.train) == (data, dataset(data).max_train)
        assert arm.augmentation == (Augmentation(0, True, 20.0) if tiny else Augmentation(4, True, 15.0))


@pytest.mark.parametrize("data", DATA)
def test_teachers_are_plain_and_have_streams_of_their_own(data):
    for arm in ARMS[data].values():
        assert (arm.role, arm.schedule.stop) == ("student", None)
        assert arm.objective.needs_teacher == (arm.teacher is not None)
        if arm.teacher:
            assert (arm.teacher.run.role, arm.teacher.run.objective.name) == ("teacher", "cross-entropy")
            assert arm.teacher.epoch == arm.teacher.run.schedule.last
            assert arm.teacher.run.teacher is None


@pytest.mark.parametrize("data", DATA)
def test_names_say_who_teaches_and_poor_teachers_stop_early(data):
    poor = {"resnet18": 1, "resnet50": 50, "resnext29": 50}
    for name, arm in ARMS[data].items():
        student, *rest = name.removesuffix(" released").split(" <- ")
        teacher, method = rest[0].split(", ") if rest else (None, student.split()[1])
        student = student.split()[0]
        assert arm.network == ImageNetwork(student)
        taught_by = student if method == "tf-kd-self" else teacher
        assert (arm.teacher and arm.teacher.run.network) == (taught_by and ImageNetwork(taught_by))
        if arm.teacher:
            assert arm.teacher.run.schedule.stop == (poor[teacher] if method == "de-kd" else None)


def compared(number):
    """The arms that a table of Yuan et al. (2020) compares, in the paper's form, as far as there are the networks."""
    for row in paper_values.table("yuan2020revisiting", f"Table {number}").to_dict("records"):
        row = {column: str(cell).lower().replace("-", "").replace(" ", "_") for column, cell in row.items()}
        student, teacher = row["student"], row.get("teacher") or row["KD's teacher"]
        yield f"{student} cross-entropy"
        if teacher != "resnext101":
            yield f"{student} <- {teacher}, {'de-kd' if 'De-KD' in row else 'kd'}"
        if "Re-KD" in row:
            yield f"{teacher} cross-entropy"
            yield f"{teacher} <- {student}, re-kd"
        for column, method in (("Tf-KD_self", "tf-kd-self"), ("Tf-KD_reg", "tf-kd-reg"), ("LSR", "lsr")):
            if column in row:
                yield f"{student} {method}"


@pytest.mark.parametrize(
    ("data", "tables", "unprinted"),
    [
        ("cifar100", (1, 4, 5, 9), ()),
        ("cifar10", (2,), ()),
        # The rest of Tables 4 and 6, which hold two data sets or are not printed here.
        (
            "tiny_imagenet",
            (3, 10),
            ("resnet50 <- densenet121, kd", *(f"{s} <- {t}, de-kd" for s in SMALL for t in ("resnet18", "resnet50"))),
        ),
    ],
)
def test_the_pairs_are_those_of_the_papers_tables(data, tables, unprinted):
    expected = {*unprinted, *(name for number in tables for name in compared(number))}
    assert expected <= ARMS[data].keys()
    pairs = {name.removesuffix(" released") for name in ARMS[data] if " <- " in name}
    assert pairs <= expected


def test_the_journal_papers_data_have_their_methods():
    methods = ["cross-entropy", "lsr", "lsrkd", "lsrkd-tc", "tf-kd-reg", "tf-kd-reg released", "mrkd"]
    assert list(ARMS["cinic10"]) == [f"{n} {m}" for n in ("resnet18", "mobilenetv2") for m in methods]


def test_another_data_set_is_refused():
    with pytest.raises(InputError, match="unknown data set 'mnist'; the paper preset has cifar100, cifar10, tiny_ima"):
        paper_arms("mnist")


@pytest.mark.slow
def test_other_processes_know_the_papers_networks_and_data(tmp_path):
    """The helpers of `execute`, and `python -m study.paper`."""
    known = "from lsr_core.data import dataset; from lsr_core.models import ImageNetwork as Network"
    code = f"import {', '.join(defining_modules())}; {known}; print(dataset('cinic10').classes, Network('googlenet'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("10 ImageNetwork")
    write_grid([CIFAR100["mobilenetv2 lsr"].at(0)], tmp_path / "grid.jsonl")
    command = [sys.executable, "-m", "study.paper", tmp_path / "grid.jsonl", "--budget-seconds", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "budget-seconds is 0" in done.stderr


def test_the_preset_has_the_grids_seeds():
    assert PAPER.seeds == SEEDS


def test_no_run_is_made_twice_and_each_can_be_read_again(grid):
    assert len({run.key for run in grid}) == len(grid)
    for run in grid:
        assert run_of(run.canonical()).key == run.key


def test_the_grid_is_every_arm_with_every_seed_and_its_teachers(grid):
    arms = with_teachers(arm for own in ARMS.values() for arm in own.values())
    assert set(grid) == {arm.at(seed) for arm in arms for seed in SEEDS}


def test_a_teacher_stands_before_its_students(grid):
    place = {run: i for i, run in enumerate(grid)}
    assert all(place[run.teacher.run] < place[run] for run in grid if run.teacher)


def test_the_first_runs_are_two_networks_with_every_main_method(grid):
    methods = ("cross-entropy", "lsr", "lsrkd", "lsrkd-tc", "tf-kd-reg", "tf-kd-reg released", "mrkd")
    names = [f"{network} {method}" for network in ("resnet18", "mobilenetv2") for method in methods]
    pairs = ("mobilenetv2 <- resnet18, kd", "resnet18 <- mobilenetv2, re-kd", "mobilenetv2 <- resnet18, de-kd")
    names += [pair + form for pair in pairs for form in ("", " released")]
    students = [run for run in grid if run.role == "student"]
    for seed in SEEDS:
        part = students[seed * len(names) : (seed + 1) * len(names)]
        assert set(part) == {CIFAR100[name].at(seed) for name in names}
    networks = {run.network.architecture for run in grid[: grid.index(part[-1])]}
    assert networks == {"resnet18", "mobilenetv2"}


def test_then_one_data_set_follows_the_other_and_one_seed_the_other(grid):
    parts = [list(part) for _, part in groupby(grid, key=lambda run: run.data)]
    assert [part[0].data for part in parts] == list(DATA)
    seeds = [[seed for seed, _ in groupby(part, key=lambda run: run.seed)] for part in parts]
    assert seeds == [[*SEEDS, *SEEDS], *[list(SEEDS)] * 3]


@pytest.fixture
def image_set(tmp_path):
    """A file of random images of so many pixels a side and classes: two of each to train on, one to test."""

    def make(side, classes):
        random = np.random.default_rng(0)
        arrays = {"class_names": np.array([str(k) for k in range(classes)])}
        for part, count in (("train", max(2 * classes, 10)), ("test", classes)):
            arrays[f"{part}_images"] = random.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
            arrays[f"{part}_labels"] = np.arange(count) % classes
        path = tmp_path / f"{side}-{classes}.npz"
        np.savez(path, **arrays)
        return str(path)

    return make


def small(arm, path, network=TINIEST):
    """The arm on eight images of a file, in batches of four, for two epochs at most."""
    schedule = replace(arm.schedule, stop=min(arm.schedule.stop or 2, 2), batch_size=4)
    made = replace(arm.objective, every=1) if hasattr(arm.objective, "every") else arm.objective
    teacher = arm.teacher and TrainedTeacher(small(arm.teacher.run, path))
    return replace(arm, data=path, train=8, schedule=schedule, objective=made, teacher=teacher, network=network)


@pytest.mark.slow
@pytest.mark.parametrize("data", DATA)
def test_every_method_trains_on_images_of_the_right_shape(data, image_set, own_store):
    path = image_set(dataset(data).image_shape[-1], CLASSES[data])
    runs = {name: small(arm, path).at(0) for name, arm in ARMS[data].items()}
    records = dict(zip(runs, execute(list(runs.values()), own_store), strict=True))
    assert all(record.diverged_at is None for record in records.values())
    own = {records[name].key: records[name].metrics["train_nll"] for name in runs if name.startswith("resnet18 ")}
    assert len(set(own.values())) == len(own)  # no method or form is another one under its name


# The other networks' gradients are tested with the networks.
@pytest.mark.slow
@pytest.mark.parametrize(("network", "side"), [("mobilenetv2", 32), ("resnet18", 64)])
def test_every_network_trains(network, side, image_set, own_store):
    data = "tiny_imagenet" if side == 64 else "cifar100"
    arm = small(ARMS[data]["resnet18 cross-entropy"], image_set(side, 2), ImageNetwork(network))
    arm = replace(arm, schedule=replace(arm.schedule, stop=1))
    (record,) = execute([arm.at(0)], own_store)
    assert record.diverged_at is None
