import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from lsr_core import InputError, objective, sweep
from lsr_core.checkpoints import unfinished
from lsr_core.execute import execute
from lsr_core.run import Run, TrainedTeacher
from lsr_core.schedule import Schedule
from lsr_core.stacks import OutOfTime
from lsr_core.store import Store
from lsr_core.trainer import Trainer

ROOT = Path(__file__).parent.parent
TEACHER = Run("digits", 50, objective("cross-entropy"), Schedule(0.1, epochs=2), 0, role="teacher")
RUNS = [
    Run("digits", 50, objective("lsr"), Schedule(0.1, epochs=3), 1),
    Run("digits", 50, objective("kd"), Schedule(0.1, epochs=3), 0, teacher=TrainedTeacher(TEACHER)),
    Run("digits", 50, objective("mrkd", every=1), Schedule(0.1, epochs=3), 0),
]
NEEDED = {"torch", "torchvision", "numpy", "scipy", "safetensors", "filelock"}


def stated(records):
    return [(record.key, record.metrics, record.curves) for record in records]


def test_a_grid_is_written_and_read_in_its_order(tmp_path):
    sweep.write_grid(RUNS, tmp_path / "grid.jsonl")
    assert [run.key for run in sweep.read_grid(tmp_path / "grid.jsonl")] == [run.key for run in RUNS]
    assert len((tmp_path / "grid.jsonl").read_text().splitlines()) == 3


def test_a_sweep_makes_what_is_missing(own_store, tmp_path, capsys):
    assert sweep.sweep(sweep.by_seed(RUNS), 600)
    assert capsys.readouterr().out.splitlines()[1].startswith("seed 0: 2 runs, ")
    other = Store(tmp_path / "other")
    assert stated(execute(RUNS, own_store)) == stated(execute(RUNS, other))


def test_a_sweep_out_of_time_goes_on_to_the_same_bits(own_store, tmp_path, monkeypatch):
    """The clock moves on by a second at each look: budgets end in the middle of runs."""
    now = iter(range(10**6))
    monkeypatch.setattr("time.monotonic", lambda: next(now))
    turns = 1
    while not sweep.sweep(sweep.by_seed(RUNS), 14):
        turns += 1
        assert turns < 60
    monkeypatch.undo()
    assert turns >= 3
    whole = Store(tmp_path / "whole")
    assert stated(execute(RUNS, own_store)) == stated(execute(RUNS, whole))
    assert not list((own_store.folder / "checkpoints").glob("*.state"))


def test_a_deadline_keeps_the_state_at_the_end_of_the_epoch(own_store, monkeypatch):
    real, deadline = Trainer._epoch, time.monotonic() + 3600

    def slow(self):
        yield from real(self)
        monkeypatch.setattr(time, "monotonic", lambda: deadline)

    monkeypatch.setattr(Trainer, "_epoch", slow)
    with pytest.raises(OutOfTime):
        execute(RUNS[:1], own_store, deadline=deadline)
    assert own_store.keys() == []
    (checkpoint,) = unfinished(own_store)
    assert checkpoint.load({"threads": 1, "device": "cpu", "precision": "float32"})["epoch"] == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read as a grid; it must hold one run's canonical form a line"),
        ("lsr\n", "cannot be read as a grid"),
        ("", "holds no run"),
        (json.dumps({**RUNS[0].canonical(), "numerics": 0}), "was described by another version of the study"),
    ],
)
def test_what_is_no_grid_is_refused(tmp_path, content, message, capsys):
    path = tmp_path / "grid.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=message):
        sweep.read_grid(path)
    assert sweep.main([str(path), "--budget-seconds", "9"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_budget_is_above_nothing():
    with pytest.raises(InputError, match="budget-seconds is 0; it must be a finite number above 0"):
        sweep.sweep(sweep.by_seed(RUNS), 0)


@pytest.mark.slow
def test_a_bare_machine_sweeps_from_a_copy_of_the_source(tmp_path, image_file):
    """Every other package is hidden; a subset of the standard library's needs could not hide."""
    runs = [image_run(str(image_file), name) for name in ("cross-entropy", "lsr")]
    sweep.write_grid(runs, tmp_path / "grid.jsonl")
    program = f"""
import importlib.abc, runpy, sys
own = {NEEDED | {"lsr_core"}!r}
class Bare(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        top = name.partition(".")[0]
        asked = sys._getframe(1)
        while asked and asked.f_globals.get("__name__", "").startswith(("importlib", "_frozen")):
            asked = asked.f_back
        by = asked.f_globals.get("__name__", "").partition(".")[0] if asked else ""
        if by in ("lsr_core", "__main__") and top not in own and top not in sys.stdlib_module_names:
            raise ModuleNotFoundError(f"No module named {{top!r}}", name=top)
sys.meta_path.insert(0, Bare())
sys.argv = ["sweep", {str(tmp_path / "grid.jsonl")!r}, "--budget-seconds", "300"]
runpy.run_module("lsr_core.sweep", run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "all runs are made"
    assert all(run.key in Store() for run in runs)


@pytest.mark.slow
def test_the_hiding_hides():
    hidden = "import pandas"
    source = (ROOT / "study" / "tables.py").read_text()
    assert hidden in source  # a module outside the sweep needs what the sweep may not
    reached = subprocess.run(
        [sys.executable, "-c", "import lsr_core.sweep, sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert not {"pandas", "sklearn", "matplotlib", "study"} & set(reached)


def image_run(data, method, seed=0):
    from lsr_core.models import ImageNetwork

    return Run(data, 60, objective(method), Schedule(0.05, epochs=1), seed, ImageNetwork("plain_cnn", width=4))


def test_the_table_has_a_line_an_arm(own_store, tmp_path, capsys):
    sweep.write_grid(RUNS, tmp_path / "grid.jsonl")
    assert sweep.main([str(tmp_path / "grid.jsonl"), "--budget-seconds", "600"]) == 0
    *_, head, lsr, kd, mrkd, last = capsys.readouterr().out.splitlines()
    assert head.split() == ["arm", "n", "accuracy,", "%", "seconds", "images/s", "starting,", "s"]
    (record,) = execute(RUNS[:1], own_store)
    expected = f"1 {100 * record.metrics['accuracy']:.2f} {record.seconds:.1f}"
    assert " ".join(lsr.split()).startswith(f"perceptron lsr, student {expected}")
    assert kd.startswith("perceptron kd <- perceptron, student")
    assert mrkd.startswith("perceptron mrkd, student")
    assert last == "all runs are made"


def test_seeds_go_together_where_a_gpu_trains_them_so(monkeypatch):
    assert [[run.seed for run in group] for group in sweep.by_seed(RUNS)] == [[1], [0, 0]]
    monkeypatch.setattr(sweep, "abreast", lambda _: 8)
    assert [len(group) for group in sweep.by_seed(RUNS)] == [3]


def test_a_folder_of_other_numerics_is_refused(own_store, tmp_path, capsys):
    other = replace(RUNS[0], seed=5)
    (record,) = execute([other], own_store)
    own_store.put(replace(record, run={**record.run, "numerics": 5}))
    sweep.write_grid(RUNS, tmp_path / "grid.jsonl")
    assert sweep.main([str(tmp_path / "grid.jsonl"), "--budget-seconds", "600"]) == 2
    assert "has records of numerics 5, and this version makes 6; set LSR_STORE to another" in capsys.readouterr().err
    assert len(own_store.keys()) == 2


def test_a_budget_that_is_too_short_for_an_epoch_is_refused_and_its_state_kept(
    own_store, tmp_path, monkeypatch, capsys
):
    sweep.write_grid(RUNS[:1], tmp_path / "grid.jsonl")
    real, now = Trainer._epoch, [0.0]

    def slow(self):
        yield from real(self)
        now[0] += 100

    monkeypatch.setattr(Trainer, "_epoch", slow)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    assert sweep.main([str(tmp_path / "grid.jsonl"), "--budget-seconds", "60"]) == 2
    message = "budget-seconds is 60, too short for one epoch; its state is kept, and the same command with more goes on"
    assert message in capsys.readouterr().err
    assert len(unfinished(own_store)) == 1
    assert sweep.main([str(tmp_path / "grid.jsonl"), "--budget-seconds", "1000"]) == 0
