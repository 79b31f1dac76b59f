import json
import os
import subprocess
import sys
import time
from importlib.metadata import entry_points
from pathlib import Path

import nbformat
import numpy as np
import pytest
from click.testing import CliRunner

from lsr_core import objective
from lsr_core.data.registry import source_of
from lsr_core.execute import execute
from lsr_core.models import ARCHITECTURES, Cost, ImageNetwork, cost
from lsr_core.run import Run
from lsr_core.schedule import Schedule
from study import build, studies
from study.cli import main

# A shell starts background jobs deaf to Ctrl-C, and their children inherit it.
HEARS_CTRL_C = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"


def call(*arguments):
    return CliRunner().invoke(main, arguments)


@pytest.fixture
def records():
    methods = (objective("cross-entropy"), objective("lsrkd", temperature=4))
    return execute([Run("digits", 50, m, Schedule(0.1, epochs=1), seed) for m in methods for seed in (0, 1)])


def test_runs_are_listed_one_a_line(records):
    lines = call("runs", "list").stdout.splitlines()
    assert len(lines) == len(records) + 1
    assert {line.split()[0] for line in lines[:-1]} == {record.key for record in records}
    assert any("lsrkd alpha=0.1 temperature=4" in line for line in lines)


def test_runs_are_listed_as_json_for_programs(records):
    rows = [json.loads(line) for line in call("runs", "list", "--json").stdout.splitlines()]
    measured = {r.key: None if r.failure else r.metrics["accuracy"] for r in records}
    assert {row["key"]: row["accuracy"] for row in rows} == measured


def test_a_diverged_run_is_listed_as_such():
    execute([Run("digits", 50, objective("cross-entropy"), Schedule(1e30, epochs=2), 0)])
    assert "diverged" in call("runs", "list").stdout


def test_a_run_is_shown_by_the_beginning_of_its_key(records):
    key = records[0].key
    assert f"key: {key}" in call("runs", "show", key[:8]).stdout
    shown = json.loads(call("runs", "show", key, "--json").stdout)
    assert shown["metrics"] == records[0].metrics


def test_runs_are_removed_all_or_none(records, own_store):
    first, second, *_ = (record.key for record in records)
    refused = call("runs", "rm", first, "0" * 20)
    assert refused.exit_code == 2
    assert first in own_store
    assert call("runs", "rm", first, second).exit_code == 0
    assert len(own_store.keys()) == len(records) - 2


def test_the_notebooks_are_listed_with_their_parameters():
    listed = call("notebooks", "list").stdout
    assert all(name in listed for name in build.names())
    assert 'study = "desktop"' in listed


@pytest.mark.slow
def test_networks_are_listed_with_their_cost():
    lines = call("models").stdout.splitlines()
    rows = [json.loads(line) for line in call("models", "--json").stdout.splitlines()]
    assert [line.split()[0] for line in lines] == [row["architecture"] for row in rows] == list(ARCHITECTURES)
    for line, row in zip(lines, rows, strict=True):
        network = ImageNetwork(row["architecture"], row["width"], row["depth"])
        assert cost(network, (3, 32, 32), 100) == Cost(row["parameters"], row["multiply_adds"])
        assert f" {row['parameters']:,} parameters" in line
        assert f" {row['multiply_adds']:,} multiply-adds" in line
    (wide,) = (line for line in lines if line.startswith("wide_resnet"))
    assert wide.endswith("width=10 depth=28")


@pytest.mark.slow
def test_networks_are_listed_for_images_of_ones_own():
    lines = call("models", "--json", "--shape", "1,28,28", "--classes", "10").stdout.splitlines()
    (row,) = (json.loads(line) for line in lines if '"resnet8"' in line)
    assert cost(ImageNetwork("resnet8"), (1, 28, 28), 10) == Cost(row["parameters"], row["multiply_adds"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("models", "--shape", "3,32"), "shape is (3, 32); plain_cnn takes (C, H, W) of square images"),
        (("models", "--classes", "1"), "classes is 1; it must be a whole number, 2 or above"),
        (("notebooks", "run", "nothing"), "unknown notebook 'nothing'; there are"),
        (("notebooks", "run", "lsrkd", "-p", "tau", "3"), "notebook 'lsrkd' has no parameter 'tau'"),
        (("notebooks", "run", "lsrkd", "-p", "preset", "slow"), "notebook 'lsrkd' has no parameter 'preset'"),
        (("claims", "--preset", "slow"), "unknown preset 'slow'; there are quick"),
        (("tune", "kdd"), "unknown method 'kdd'"),
        (("tune", "lsr", "--preset", "slow"), "unknown preset 'slow'"),
        (("runs", "show", "zz"), "no record's key begins with 'zz'"),
        (("runs", "rm", "zz"), "there is no record 'zz'"),
        (("data", "check", "digits"), "'digits' is not kept in a file; there are cifar100, cifar10, fashion_mnist"),
        (("data", "fetch", "mnist", "cifar"), "'cifar' is not kept in a file"),
        (("data", "check", "mnist"), "`lsr data fetch mnist` downloads it"),
        (("data", "fetch", "gtzan"), "gtzan has no public download here; put its table at"),
        (("data", "check", "nowhere.npz"), "there is no file nowhere.npz"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_two(arguments, message):
    result = call(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.output


def test_data_sets_are_listed_with_their_files(tmp_path):
    lines = call("data", "list").stdout.splitlines()
    assert [line.split()[0] for line in lines[:7]] == [
        "cifar100", "cifar10", "fashion_mnist", "mnist", "gtzan", "cinic10", "tiny_imagenet",
    ]  # fmt: skip
    assert all(line.endswith("missing") for line in lines[:7])
    assert "45000 to train on, 3×32×32 100 classes" in lines[0]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mnist.npz").touch()
    assert call("data", "list").stdout.splitlines()[3].endswith(str(tmp_path / "data" / "mnist.npz"))


def test_a_users_images_are_checked(image_arrays, tmp_path):
    path = tmp_path / "own.npz"
    np.savez(path, **image_arrays)
    checked = call("data", "check", str(path))
    assert checked.exit_code == 0, checked.output
    assert "has fingerprint" in checked.stdout
    path.write_bytes(path.read_bytes()[:-100])
    source_of.cache_clear()
    damaged = call("data", "check", str(path))
    assert damaged.exit_code == 2
    assert "is damaged or no .npz file" in damaged.stderr
    assert damaged.stderr.count("\n") == 1


def test_a_set_that_is_there_is_not_downloaded_again(image_arrays, tmp_path):
    path = tmp_path / "data" / "mnist.npz"
    path.parent.mkdir()
    np.savez(path, **image_arrays)
    for command in ("fetch", "check"):
        result = call("data", command, "mnist")
        assert result.exit_code == 2
        assert "mnist.npz has fingerprint" in result.stderr
        assert "remove it, and `lsr data fetch mnist` makes it anew" in result.stderr


@pytest.mark.slow
def test_real_data_is_checked(unpacked, monkeypatch):
    monkeypatch.setenv("LSR_DATA", str(unpacked("mnist")))
    unpacked("gtzan")
    for command in ("fetch", "check"):
        result = call("data", command, "mnist", "gtzan")
        assert result.exit_code == 0, result.output
        assert len(result.stdout.splitlines()) == 2


def test_a_damaged_record_is_one_sentence_and_nothing_is_lost(records, own_store):
    path = next(own_store.folder.glob(f"*/{records[0].key}.json"))
    path.write_text(path.read_text()[:100])
    result = call("runs", "list")
    assert result.exit_code == 2
    assert f"lsr runs rm {records[0].key}" in result.stderr
    assert len(own_store.keys()) == len(records)
    assert call("runs", "rm", records[0].key).exit_code == 0
    assert call("runs", "list").exit_code == 0


@pytest.mark.slow
def test_a_bad_value_in_a_notebook_is_one_sentence_and_exit_code_two(tmp_path):
    """One stands for all: what raises is tested where it does."""
    result = call("notebooks", "run", "label_smoothing", "-p", "epsilons", "[1.5]", "--out", str(tmp_path))
    assert result.exit_code == 2
    assert "epsilon is 1.5; it must be a number from 0 to 1" in result.stderr
    assert "Traceback" not in result.stderr
    assert "refused" in result.stdout


@pytest.mark.slow
def test_ctrl_c_keeps_finished_runs_and_the_same_command_goes_on(own_store):
    """A real process, interrupted by a real signal while it trains."""
    code = f"""
{HEARS_CTRL_C}
import sys
from lsr_core import objective
from study.cli import main
from study import settings, tuning
tuning.settings_of = lambda method, preset: settings.DIGITS[:1]
main(["tune", "cross-entropy"])
"""
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    while len(own_store.keys()) < 32 and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(2)
    said = process.communicate()[1]
    assert process.returncode == 130
    assert "finished runs are kept" in said
    assert "Traceback" not in said
    kept = {key: own_store.record_path(key).read_bytes() for key in sorted(own_store.keys())}
    assert 32 <= len(kept) < 360
    assert len(list(own_store)) == len(kept)  # none is damaged
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(own_store.keys()) == 360
    assert {key: own_store.record_path(key).read_bytes() for key in kept} == kept


@pytest.mark.slow
def test_who_is_told_to_end_leaves_no_temporary_folder(tmp_path):
    """As a batch system or `kill` tells it."""
    code = "from study.cli import main; main(['results', 'recompute', 'one-layer'])"
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, env=environment)
    while not list(tmp_path.glob("*/*")) and process.poll() is None:
        time.sleep(0.01)
    process.terminate()
    assert "interrupted; finished runs are kept" in process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_ctrl_c_ends_the_notebooks_and_their_kernels(tmp_path):
    source, mark = tmp_path / "notebooks", tmp_path / "pid"
    source.mkdir()
    cell = f"import os, time\nopen({str(mark)!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)"
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    cells = [nbformat.v4.new_code_cell(cell)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), source / "slow.ipynb")
    code = f"""
{HEARS_CTRL_C}
from pathlib import Path
from study import cli, build
build.FOLDER = Path({str(source)!r})
cli.main(["notebooks", "run", "--out", {str(tmp_path / "out")!r}])
"""
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    while not (mark.exists() and mark.read_text()) and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(2)
    said = process.communicate(timeout=30)[1]
    assert process.returncode == 130
    assert "interrupted" in said
    assert "Traceback" not in said
    deadline = time.monotonic() + 10
    while Path(f"/proc/{mark.read_text()}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not Path(f"/proc/{mark.read_text()}").exists()


@pytest.mark.slow
def test_a_store_that_cannot_be_written_is_one_sentence(tmp_path, monkeypatch):
    store = "/dev/null/records"
    monkeypatch.setenv("LSR_STORE", store)
    result = call("notebooks", "run", "label_smoothing", "-p", "seeds", "2", "--out", str(tmp_path))
    assert result.exit_code == 2
    assert f"results folder {store} cannot be written" in result.stderr
    assert "Traceback" not in result.stderr


def test_help_names_every_command():
    assert all(word in call("--help").stdout for word in ("notebooks", "runs", "data", "tune"))
    assert call("--version").exit_code == 0
    (command,) = entry_points(group="console_scripts", name="lsr")
    assert command.load() is main


def test_claims_are_printed_with_verdict_effect_and_p(monkeypatch):
    monkeypatch.setitem(studies.STUDIES, "quick", studies.Study("quick", range(3), live=True))
    said = call("claims", "--paper", "Müller 2019", "--json")
    assert said.exit_code == 0, said.output
    rows = [json.loads(line) for line in said.stdout.splitlines()]
    smoothing = [f"{name}-{n}" for n in (100, 300) for name in ("B1", "M2a", "M2b")]
    assert [row["id"] for row in rows] == [*smoothing, "M2a-65", "M2a-50", "M3-100"]
    assert all(row["n"] == 3 and row["low"] <= row["mean"] <= row["high"] for row in rows)
    plain = call("claims", "--paper", "Müller 2019")
    assert all(row["verdict"] in plain.stdout for row in rows)
    unknown = call("claims", "--paper", "Nobody 1999")
    assert unknown.exit_code == 2
    assert "unknown paper 'Nobody 1999'; there are " in unknown.stderr
