import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from lsr_core import InputError, checkpoints, files, objective, stacks
from lsr_core.checkpoints import Checkpoint
from lsr_core.execute import execute
from lsr_core.learner import Learner
from lsr_core.models import Convnet
from lsr_core.run import Run, TrainedTeacher
from lsr_core.schedule import Schedule
from lsr_core.store import Store

# What another process does: trains a grid of this file, and notes every stack that it begins and ends.
SCRIPT = """
    import sys
    sys.path.insert(0, {tests!r})
    from lsr_core import checkpoints
    from lsr_core.execute import execute
    from lsr_core.store import Store
    from lsr_core.trainer import Trainer
    import test_resume
    checkpoints.SECONDS = {seconds}
    real = Trainer.training
    def noted(self, *arguments):
        outcomes = yield from real(self, *arguments)
        with open({log!r}, "a") as file:
            file.write("".join(run.key + "\\n" for run in self.runs))
        return outcomes
    Trainer.training = noted
    print("ready", flush=True)
    execute(test_resume.{grid}(), Store({store!r}))
"""


def start(tmp_path, own_store, grid, seconds=20.0):
    tests = os.path.dirname(__file__)  # noqa: PTH120
    names = {"tests": tests, "log": str(tmp_path / "log"), "store": str(own_store.folder)}
    script = SCRIPT.format(**names, grid=grid, seconds=seconds)
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def ended(process):
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors.decode()


def trained(tmp_path):
    return (tmp_path / "log").read_text().split() if (tmp_path / "log").exists() else []


def stated(records):
    return [(record.key, record.metrics, record.curves, record.diverged_at) for record in records]


def small_grid():
    return [Run("digits", 50, objective("lsr"), Schedule(0.1, epochs=2), seed) for seed in range(80)]


def large_grid():
    methods = [objective("cross-entropy"), objective("lsr")]
    return [Run("digits", 100, m, Schedule(0.1, 1e-3), seed) for m in methods for seed in range(100)]


def grid_of_all_kinds():
    """Stateful methods, convnets, teachers after an epoch: whatever a state has to hold."""
    schedule = Schedule(0.1, 1e-3, epochs=20)
    teachers = [Run("digits", 60, objective("lsr"), schedule, seed, role="teacher") for seed in range(3)]
    return [
        *(Run("digits", 60, objective("mrkd-fcn-ka", every=3), schedule, seed) for seed in range(3)),
        *(Run("digits", 60, objective("ps-kd", epochs=20), schedule, seed) for seed in range(3)),
        *(Run("digits", 60, objective("beta-smoothing-released"), schedule, seed, Convnet((2, 4))) for seed in (0, 1)),
        *(
            Run("digits", 60, objective("kd", temperature=4), schedule, t.seed, teacher=TrainedTeacher(t, 7))
            for t in teachers
        ),
    ]


# A stack that stopped.

RUNS = [Run("digits", 50, objective("lsr"), Schedule(0.1, epochs=3), seed) for seed in range(3)]


class Stopped(Exception):
    """What ends a training in the middle."""


@pytest.fixture
def interrupted(own_store, monkeypatch):
    """The store after a training of `RUNS` that stopped after the state of its first epoch was written."""
    saved = []

    def save_and_stop(self, state, threads):
        real(self, state, threads)
        saved.append(state["epoch"])
        raise Stopped

    real = Checkpoint.save
    monkeypatch.setattr(checkpoints, "SECONDS", 0)
    monkeypatch.setattr(Checkpoint, "save", save_and_stop)
    with pytest.raises(Stopped):
        execute(RUNS, own_store)
    monkeypatch.undo()
    monkeypatch.setenv("LSR_STORE", str(own_store.folder))
    assert saved == [1]
    assert own_store.keys() == []
    return own_store


def the_state(own_store):
    (path,) = (own_store.folder / "checkpoints").glob("*.state")
    return path


def undisturbed(tmp_path):
    return stated(execute(RUNS, Store(tmp_path / "other")))


def test_an_interrupted_stack_goes_on_resume(interrupted, tmp_path, monkeypatch):
    steps = []
    real = Learner.step
    monkeypatch.setattr(Learner, "step", lambda *a: steps.append(1) or real(*a))
    records = execute(RUNS, interrupted)
    assert len(steps) == 4  # of 6: those of the first epoch were before
    assert stated(records) == undisturbed(tmp_path)
    assert all(record.provenance["resumed"] for record in records)
    assert list((interrupted.folder / "checkpoints").iterdir()) == []
    assert list((interrupted.folder / "locks").iterdir()) == []


def test_a_wish_for_one_of_the_runs_finishes_the_stack_resume(interrupted):
    (record,) = execute(RUNS[1:2], interrupted)
    assert record.provenance["resumed"]
    assert interrupted.keys() == sorted(run.key for run in RUNS)


def test_other_runs_leave_a_state_alone_resume(interrupted):
    other = Run("digits", 50, objective("lsr"), Schedule(0.1, epochs=1), 9)
    execute([other], interrupted)
    assert the_state(interrupted).exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: content[:100],
        lambda content: content[:0],
        lambda content: content[:-1] + bytes([content[-1] ^ 1]),
        lambda content: b"[1]\n" + content,
    ],
)
def test_a_damaged_state_is_told_and_the_runs_start_again_resume(interrupted, tmp_path, damage):
    path = the_state(interrupted)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.warns(UserWarning, match=r"checkpoint .* is damaged .* and is removed; its runs start again"):
        records = execute(RUNS, interrupted)
    assert stated(records) == undisturbed(tmp_path)
    assert not path.exists()


def edited(own_store, **provenance):
    path = the_state(own_store)
    head, content = path.read_bytes().split(b"\n", 1)
    head = json.loads(head)
    head["provenance"] |= provenance
    path.write_bytes(json.dumps(head).encode() + b"\n" + content)


def test_a_state_of_other_sources_is_told_and_not_used_resume(interrupted, tmp_path):
    edited(interrupted, sources="another")
    with pytest.warns(
        UserWarning, match="was made by another version of lsr_core and is removed; its runs start again"
    ):
        records = execute(RUNS, interrupted)
    assert stated(records) == undisturbed(tmp_path)
    assert not any(record.provenance["resumed"] for record in records)


@pytest.mark.parametrize(("name", "value"), [("threads", 8), ("simd", "SSE9")])
def test_a_state_of_other_conditions_is_told_and_goes_on_resume(interrupted, name, value):
    edited(interrupted, **{name: value})
    with pytest.warns(UserWarning, match=f"3 runs were begun with {name} {value} and go on with"):
        records = execute(RUNS, interrupted)
    assert all(record.provenance["resumed"] for record in records)


def test_what_is_left_of_finished_runs_is_cleared_away_resume(interrupted):
    path = the_state(interrupted)
    content = path.read_bytes()
    execute(RUNS, interrupted)
    path.write_bytes(content)  # as if the process had died before it could remove it
    execute([Run("digits", 50, objective("lsr"), Schedule(0.1, epochs=1), 9)], interrupted)
    assert not path.exists()


def test_a_full_disk_ends_in_a_sentence_and_the_store_is_whole(own_store, monkeypatch):
    finished = execute(RUNS[:1], own_store)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "SECONDS", 0)
    monkeypatch.setattr(files, "write_whole", full)
    with pytest.raises(InputError, match=r"cannot be written \(No space left on device\); finished runs are kept"):
        execute(RUNS, own_store)
    monkeypatch.undo()
    assert execute(RUNS[:1], own_store) == finished
    assert len(execute(RUNS, own_store)) == 3


# Several processes.


@pytest.mark.slow
def test_two_processes_share_a_grid(own_store, tmp_path):
    processes = [start(tmp_path, own_store, "small_grid") for _ in range(2)]
    for process in processes:
        ended(process)
    assert sorted(trained(tmp_path)) == own_store.keys() == sorted(run.key for run in small_grid())


@pytest.mark.slow
def test_workers_share_a_grid_and_end(own_store, tmp_path):
    records = execute(small_grid(), own_store, workers=2)
    assert stated(records) == stated(execute(small_grid(), Store(tmp_path / "alone")))


@pytest.mark.slow
def test_what_a_killed_process_locked_is_taken_over(own_store, tmp_path, monkeypatch):
    process = start(tmp_path, own_store, "large_grid")
    locks = own_store.folder / "locks"
    while not (locks.exists() and len(list(locks.iterdir())) >= 32):
        time.sleep(0.01)
    monkeypatch.setattr(stacks, "_POLL", 0.01)
    waited = []
    monkeypatch.setattr(time, "sleep", lambda seconds: waited.append(seconds) or process.kill())
    locked = [run for run in large_grid() if (locks / f"{run.key}.lock").exists()]
    execute(locked[:2], own_store)
    process.communicate()
    assert waited  # they were busy, until the other process died
    assert all(run.key in own_store for run in locked[:2])


# Faults, slowly.


@pytest.mark.endurance
def test_twenty_kills_resume_to_the_same_bits(tmp_path, capsys):
    """SIGKILL at random moments after the first state: the rerun ends as a process that nobody disturbed."""
    undisturbed = stated(execute(grid_of_all_kinds(), Store(tmp_path / "undisturbed")))
    moments, resumed, ends = random.Random(0), 0, 0
    for kill in range(20):
        killed = Store(tmp_path / f"killed-{kill}")
        process = start(tmp_path, killed, "grid_of_all_kinds", seconds=0)
        while not list(killed.folder.glob("checkpoints/*.state")):
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 1.5))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        before = len(killed.keys())
        ended(start(tmp_path, killed, "grid_of_all_kinds", seconds=0))
        records = execute(grid_of_all_kinds(), killed)
        assert stated(records) == undisturbed
        assert len(killed.keys()) == len(grid_of_all_kinds()) + 3  # the teachers have records, too
        assert not list(killed.folder.rglob("*.part"))
        resumed += any(record.provenance["resumed"] for record in killed)
        ends += before < len(killed.keys())
    with capsys.disabled():
        print(f"\n20 kills: {ends} in the middle of the grid, {resumed} reruns went on from a state, 20 identical ends")
    assert ends >= 15
    assert resumed >= 10


@pytest.mark.endurance
def test_four_processes_share_two_hundred_runs(own_store, tmp_path, capsys):
    processes = [start(tmp_path, own_store, "large_grid") for _ in range(4)]
    for process in processes:
        ended(process)
    with capsys.disabled():
        print(f"\n4 processes: {len(own_store.keys())} records, {len(trained(tmp_path))} trainings")
    assert sorted(trained(tmp_path)) == own_store.keys()
    assert len(own_store.keys()) == 200
    assert stated(execute(large_grid(), own_store)) == stated(execute(large_grid(), Store(tmp_path / "alone")))


@pytest.mark.endurance
def test_six_thousand_runs_stream_through(own_store, capsys):
    script = """
        import json, resource, sys, time
        from lsr_core import objective
        from lsr_core.execute import execute
        from lsr_core.run import Run
        from lsr_core.schedule import Schedule
        methods = [objective("lsr", epsilon=i / 100) for i in range(100)]
        runs = [Run("digits", 100, m, Schedule(0.1, 1e-3), seed) for m in methods for seed in range(60)]
        start = time.perf_counter()
        records = execute(runs, workers=2)
        peak = [resource.getrusage(who).ru_maxrss / 2**20 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        print(json.dumps([len(records), time.perf_counter() - start, max(peak)]))
    """
    environment = {**os.environ, "TQDM_DISABLE": "1", "LSR_STORE": str(own_store.folder)}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, env=environment, check=True
    )
    count, seconds, peak = json.loads(done.stdout)
    with capsys.disabled():
        print(f"\n{count} runs by 2 processes: {seconds:.0f} s, at most {peak:.2f} GiB resident in one")
    assert count == len(own_store.keys()) == 6000
    assert peak < 1.5 * 1e9 / 2**30
