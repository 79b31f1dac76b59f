import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from lsr_core import execute as execution
from lsr_core import objective
from lsr_core.execute import execute
from lsr_core.models import Convnet
from lsr_core.run import Run, TrainedTeacher
from lsr_core.schedule import Schedule
from lsr_core.sharing import Claims
from lsr_core.store import Store

# What another process does: trains a grid of this file, and notes every stack that it begins and ends.
SCRIPT = """
    import sys
    sys.path.insert(0, {tests!r})
    from lsr_core import checkpoints, execute as execution, training
    from lsr_core.store import Store
    import test_sharing
    checkpoints.SECONDS = {seconds}
    real = training.train
    def noted(stack, *arguments, **options):
        outcomes = real(stack, *arguments, **options)
        with open({log!r}, "a") as file:
            file.write("".join(run.key + "\\n" for run in stack))
        return outcomes
    training.train = noted
    print("ready", flush=True)
    execution.execute(test_sharing.{grid}(), Store({store!r}))
"""


def start(tmp_path, store, grid, seconds=20.0):
    tests = os.path.dirname(__file__)  # noqa: PTH120
    script = SCRIPT.format(tests=tests, log=str(tmp_path / "log"), store=str(store.folder), grid=grid, seconds=seconds)
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


def test_a_claim_is_one_processes_and_is_given_back(own_store):
    with Claims(own_store) as mine, Claims(own_store) as yours:
        assert mine.take("a" * 20)
        assert not yours.take("a" * 20)
        assert yours.take("b" * 20)
        mine.release("a" * 20)
        assert yours.take("a" * 20)
    assert list((own_store.folder / "claims").iterdir()) == []


def test_an_error_gives_claims_back(own_store):
    def fail():
        with Claims(own_store) as claims:
            claims.take("a" * 20)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    with Claims(own_store) as claims:
        assert claims.take("a" * 20)


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
def test_what_a_killed_process_claimed_is_taken_over(own_store, tmp_path, monkeypatch):
    process = start(tmp_path, own_store, "large_grid")
    claims = own_store.folder / "claims"
    while not (claims.exists() and len(list(claims.iterdir())) >= 32):
        time.sleep(0.01)
    monkeypatch.setattr(execution, "_POLL", 0.01)
    waited = []
    monkeypatch.setattr(time, "sleep", lambda seconds: waited.append(seconds) or process.kill())
    claimed = [run for run in large_grid() if (claims / f"{run.key}.lock").exists()]
    execute(claimed[:2], own_store)
    process.communicate()
    assert waited  # they were busy, until the other process died
    assert all(run.key in own_store for run in claimed[:2])


# Faults, slowly.


@pytest.mark.endurance
def test_twenty_kills_resume_to_the_same_bits(tmp_path, capsys):
    """SIGKILL at random moments: the rerun goes on and ends as a process that nobody disturbed."""
    undisturbed = stated(execute(grid_of_all_kinds(), Store(tmp_path / "undisturbed")))
    moments, resumed, ends = random.Random(0), 0, 0
    for kill in range(20):
        store = Store(tmp_path / f"killed-{kill}")
        process = start(tmp_path, store, "grid_of_all_kinds", seconds=0)
        process.stdout.readline()
        time.sleep(moments.uniform(0, 1.5))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        before = len(store.keys())
        ended(start(tmp_path, store, "grid_of_all_kinds", seconds=0))
        records = execute(grid_of_all_kinds(), store)
        assert stated(records) == undisturbed
        assert len(store.keys()) == len(grid_of_all_kinds()) + 3  # the teachers have records, too
        assert not list(store.folder.rglob("*.part"))
        resumed += any(record.provenance["resumed"] for record in store)
        ends += before < len(store.keys())
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
