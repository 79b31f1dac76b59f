"""Ray trains: the bits of one process, faults, and the sentences that refuse."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

ray = pytest.importorskip("ray")

from ray import cluster_utils  # noqa: E402
from test_execute import kd, runs  # noqa: E402
from test_resume import large_grid, stated  # noqa: E402

from lsr_core import InputError, connection  # noqa: E402
from lsr_core.cluster import Ray  # noqa: E402
from lsr_core.execute import execute  # noqa: E402
from lsr_core.stacks import OutOfTime  # noqa: E402
from lsr_core.store import Store  # noqa: E402
from study.cli import main  # noqa: E402

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def here():
    """A Ray of this machine."""
    yield Ray()
    ray.shutdown()


def test_ray_makes_the_bits_of_one_process_teachers_first(here, own_store, tmp_path):
    asked = [*kd([0, 1, 2], 2), *kd([0, 1], alpha=0.9), *runs(40)]
    records = execute(asked, own_store, here)
    assert [record.key for record in records] == [run.key for run in asked]
    assert stated(records) == stated(execute(asked, Store(tmp_path / "alone")))
    assert len(own_store.keys()) == 3 + 5 + 40  # the teachers have records, too
    provenance = {name: records[0].provenance[name] for name in ("stack", "abreast", "threads", "device", "resumed")}
    assert provenance == {"stack": 5, "abreast": 1, "threads": 1, "device": "cpu", "resumed": False}


def test_ray_makes_what_is_missing_and_nothing_twice(here, own_store, monkeypatch):
    first, tasks, real = execute(runs(3), own_store, here), [], Ray._land

    def noted(self, flying, training):
        tasks.extend(run for run in flying.values() if run not in tasks)
        real(self, flying, training)

    monkeypatch.setattr(Ray, "_land", noted)
    assert execute(runs(5), own_store, here)[:3] == first
    assert [[job.run.seed for job in stack] for stack in tasks] == [[3, 4]]


def test_a_mistake_in_a_task_is_one_sentence(here, own_store):
    execute(kd([0]), own_store, here)
    (path,) = own_store.folder.glob("weights/*/*.safetensors")
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(InputError, match="were damaged and are removed; the same command trains them again") as caught:
        execute(kd([0], alpha=0.9), own_store, here)
    assert "\n" not in str(caught.value)
    execute(kd([0], alpha=0.9), own_store, here)


def test_a_warning_of_a_task_is_heard(here, own_store):
    own_store.files.write(own_store.folder / "checkpoints" / "0.state", b"torn")
    with pytest.warns(UserWarning, match=r"0\.state is damaged \(cut short or changed\) and is removed"):
        execute(runs(1), own_store, here)


def test_no_task_begins_after_the_deadline(here, own_store):
    with pytest.raises(OutOfTime):
        execute(runs(2), own_store, here, deadline=time.monotonic())


@pytest.mark.usefixtures("here")
def test_the_command_line_makes_a_study_on_ray(monkeypatch, own_store):
    made = []
    monkeypatch.setattr("study.studies.make", lambda name, store, workers: made.append((name, store, workers)) or ["x"])
    done = CliRunner().invoke(main, ["results", "make", "one-layer", "--ray"])
    assert done.output == "x\n"
    ((name, store, workers),) = made
    assert (name, store.folder) == ("one-layer", own_store.folder)
    execute(runs(1), store, workers)
    refused = CliRunner().invoke(main, ["results", "make", "gpu", "--ray"])
    assert (refused.exit_code, refused.output) == (
        2,
        "lsr: preset 'gpu' is made on a GPU, and no node of the cluster has one\n",
    )


# What is refused.


def refused(address, monkeypatch):
    assert connection.PATIENCE <= 20
    monkeypatch.setattr(connection, "PATIENCE", 4)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(InputError) as caught:
        Ray(address)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_address_that_nobody_answers_is_refused(monkeypatch):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()  # takes what is sent, and says nothing
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        sentence = f"the cluster at {address} cannot be used (nothing answers there as a Ray cluster does); start one"
        assert refused(address, monkeypatch).startswith(sentence)


def test_without_the_extra_one_sentence_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    done = CliRunner().invoke(main, ["results", "make", "one-layer", "--ray", "auto"])
    assert (done.exit_code, done.output) == (
        2,
        "lsr: Ray is not installed; pip install 'lsr-core[cluster]' brings it\n",
    )


@pytest.mark.parametrize(
    ("there", "message"), [(None, "has no lsr_core that can be imported; install"), ("0", "has another version of")]
)
def test_a_node_without_the_package_or_with_another_version_is_refused(here, own_store, monkeypatch, there, message):
    monkeypatch.setattr(connection, "_asking", lambda: lambda: there)
    with pytest.raises(InputError, match=message):
        execute(runs(1), own_store, here)
    assert own_store.keys() == []


def test_a_store_that_a_node_does_not_see_is_refused(here, own_store, monkeypatch):
    monkeypatch.setattr(Store, "mark", lambda _: b"of another folder of this name")
    with pytest.raises(InputError, match=r"does not see the store .*; LSR_STORE must name a folder that all"):
        execute(runs(1), own_store, here)
    assert own_store.keys() == []


def test_a_cluster_without_a_cpu_is_refused(here, own_store, monkeypatch):
    monkeypatch.setattr(ray, "nodes", list)
    with pytest.raises(InputError, match="Ray on this machine has no node with a CPU to lend; join one"):
        execute(runs(1), own_store, here)


# Faults, slowly.

PATHS = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
DRIVER = """
    import sys
    sys.path.insert(0, {tests!r})
    import test_resume
    from lsr_core.cluster import Ray
    from lsr_core.execute import execute
    from lsr_core.store import Store
    execute(test_resume.large_grid(), Store({store!r}), Ray())
"""


def driver(own_store):
    script = textwrap.dedent(DRIVER.format(tests=str(Path(__file__).parent), store=str(own_store.folder)))
    return subprocess.Popen([sys.executable, "-c", script], env={**os.environ, **PATHS})


@pytest.fixture
def two_nodes():
    """A cluster of two nodes, and the one that may leave."""
    ray.shutdown()
    nodes = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "env_vars": PATHS})
    leaving = nodes.add_node(num_cpus=1, env_vars=PATHS)
    yield nodes, leaving
    ray.shutdown()
    nodes.shutdown()


@pytest.mark.endurance
def test_a_node_that_leaves_loses_nothing(two_nodes, own_store, tmp_path):
    nodes, leaving = two_nodes

    def leave():
        while not own_store.keys():
            time.sleep(0.05)
        nodes.remove_node(leaving, allow_graceful=False)

    thread = threading.Thread(target=leave)
    thread.start()
    records = execute(large_grid(), own_store, Ray(nodes.address))
    thread.join()
    assert own_store.keys() == sorted(run.key for run in large_grid())
    assert stated(records) == stated(execute(large_grid(), Store(tmp_path / "alone")))


@pytest.mark.endurance
def test_a_killed_driver_that_is_started_again_loses_nothing_and_makes_nothing_twice(own_store, tmp_path):
    begun = driver(own_store)
    while not own_store.keys():
        time.sleep(0.05)
    begun.send_signal(signal.SIGKILL)
    begun.wait()
    time.sleep(5)  # its workers end with it
    before = {record.key: record for record in own_store}
    assert 0 < len(before) < 200
    assert driver(own_store).wait(timeout=600) == 0
    assert own_store.keys() == sorted(run.key for run in large_grid())
    assert all(own_store.get(key) == record for key, record in before.items())
    assert stated(execute(large_grid(), own_store)) == stated(execute(large_grid(), Store(tmp_path / "alone")))
