"""A preset on a borrowed machine, rehearsed on a CPU with tiny images from a bare copy of the source, within a time."""

import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from test_sweep import RUNS

from lsr_core.execute import execute
from lsr_core.store import Store
from study import plans, published_records, studies, tuning
from study.cli import main

ROOT = Path(__file__).parent.parent
NEEDED = {"torch", "torchvision", "numpy", "scipy", "safetensors", "filelock"}
BARE = f"""
import importlib.abc, runpy, sys
own = {NEEDED | {"lsr_core", "study"}!r}
class Bare(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        asked = sys._getframe(1)
        while asked and asked.f_globals.get("__name__", "").startswith(("importlib", "_frozen")):
            asked = asked.f_back
        by = asked.f_globals.get("__name__", "").partition(".")[0] if asked else ""
        top = name.partition(".")[0]
        if by in ("lsr_core", "study", "__main__") and top not in own and top not in sys.stdlib_module_names:
            raise ModuleNotFoundError(f"No module named {{top!r}}", name=top)
sys.meta_path.insert(0, Bare())
runpy.run_module("lsr_core.sweep", run_name="__main__")
"""


def tiny_plan(images):
    """The plan of the preset `gpu` on other images, with other networks, in few epochs and on any device."""
    text = (plans.FOLDER / "gpu" / "plan.toml").read_text()
    for old, new in (
        ('["cifar100", 45000]', f'["{images}", 60]'), ('device = "cuda"\n', ""), ("[10, 14]", "[10, 11]"),
        ("[3, 5]", "[1, 2]"), ("epochs = 30", "epochs = 2"), ("every = 5", "every = 1"), ("= 128", "= 32"),
        ('"resnet18" }', '"plain_cnn", width = 4 }'), ('"mobilenetv2" }', '"plain_cnn", width = 2 }'),
    ):  # fmt: skip
        assert old in text, old
        text = text.replace(old, new)
    return text


@pytest.fixture(scope="module")
def machine(tmp_path_factory, image_file):
    """A copy of the source with such a plan, and a function that sweeps there for so many seconds."""
    copy = tmp_path_factory.mktemp("machine")
    for package in ("lsr_core", "study"):
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    for study in plans.planned():
        (copy / "results" / study).mkdir(parents=True)
        shutil.copy(plans.FOLDER / study / "plan.toml", copy / "results" / study)
    (copy / "results" / "tuning").mkdir()
    (copy / "results" / "gpu" / "plan.toml").write_text(tiny_plan(image_file))

    def sweep(seconds, **environment):
        command = [sys.executable, "-c", BARE, "--preset", "gpu", "--budget-seconds", str(seconds)]
        environment = {**os.environ, "PYTHONPATH": str(copy), "LSR_STORE": str(copy / "records"), **environment}
        return subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)

    return copy, sweep


@pytest.mark.slow
def test_a_rehearsal_stops_in_time_goes_on_and_makes_nothing_twice(machine):
    copy, sweep = machine
    times, budget = {}, 12
    while True:
        started = time.monotonic()
        done = sweep(budget)
        assert time.monotonic() - started < 2 * budget + 60  # with what Python and torch take to start
        short = "too short for one epoch; its state is kept" in done.stderr  # on a busy machine
        assert done.returncode in (0, 3) or short, done.stderr
        records = {path: path.stat().st_mtime_ns for path in (copy / "records").glob("??/*.json")}
        assert records.items() >= times.items()  # what was made stays as it was made
        assert len(records) > len(times) or short
        times, budget = records, max(60, budget)
        shutil.rmtree(copy / "results" / "tuning")  # as on a fresh machine, which has the records alone
        (copy / "results" / "tuning").mkdir()
        if done.returncode == 0:
            break
    assert len(records) == 3 + 2 * 14
    assert not list((copy / "records" / "weights").glob("*/*"))  # no run is missing that needs a teacher
    *_, last = done.stdout.splitlines()
    assert last == "all runs are made"
    lines = done.stdout.splitlines()[-15:-1]
    assert [line.split()[0] for line in lines[:6]] == plans.plan("gpu").tiers[0]


@pytest.mark.slow
def test_what_another_machine_left_is_checked_and_published(machine, tmp_path, monkeypatch):
    """After the rehearsal: at home, with the same plan and a folder of results of its own."""
    copy, _ = machine
    results = tmp_path / "results"
    shutil.copytree(copy / "results" / "gpu", results / "gpu")
    (results / "tuning").mkdir()
    monkeypatch.setattr(plans, "FOLDER", results)
    monkeypatch.setattr(published_records, "FOLDER", results)
    monkeypatch.setattr(tuning, "FOLDER", results / "tuning")
    monkeypatch.setitem(tuning.TUNED, "gpu", plans.plan("gpu").settings)
    monkeypatch.setitem(studies.STUDIES, "gpu", studies.planned_study("gpu"))
    caches = tuning.published_rows, tuning.tuned, tuning.planned_protocol
    for cached in caches:
        cached.cache_clear()
    said = CliRunner().invoke(main, ["results", "import", str(copy / "records")])
    assert said.exit_code == 0, said.output
    assert "gpu/label_smoothing.jsonl: 4 runs" in said.stdout
    assert len(Store().keys()) == 31
    assert published_records.verify("gpu") == 28
    for cached in caches:
        cached.cache_clear()


def test_a_folder_that_is_none_of_records_is_refused(tmp_path):
    refused = CliRunner().invoke(main, ["results", "import", str(tmp_path)])
    assert refused.exit_code == 2
    assert refused.stderr.count("\n") == 1
    assert "holds no records; a sweep leaves them in the folder that LSR_STORE names" in refused.stderr


def test_records_of_other_numerics_are_refused_and_none_is_kept(tmp_path, own_store):
    other = Store(tmp_path / "other")
    (record,) = execute(RUNS[:1], other)
    other.put(replace(record, run={**record.run, "numerics": 5}))
    refused = CliRunner().invoke(main, ["results", "import", str(other.folder)])
    assert refused.exit_code == 2
    assert "has records of numerics 5, and this version makes 6" in refused.stderr
    assert own_store.keys() == []
    assert len(other.keys()) == 2


@pytest.mark.slow
def test_bad_input_ends_in_one_sentence(machine, tmp_path, image_file):
    """CIFAR-100's file missing, cut short or another's; no GPU where one is asked for."""
    copy, sweep = machine
    plan = copy / "results" / "gpu" / "plan.toml"
    tiny = plan.read_text()
    data = tmp_path / "data"
    data.mkdir()
    cifar = tiny.replace(f'["{image_file}", 60]', '["cifar100", 60]')
    contents = {"could not be fetched": None, "is damaged": image_file.read_bytes()[:999], "has fingerprint": b""}
    try:
        for message, content in contents.items():
            if content is not None:
                (data / "cifar100.npz").write_bytes(content or image_file.read_bytes())
            plan.write_text(cifar)
            refused = sweep(
                60, LSR_DATA=str(data), LSR_STORE=str(tmp_path / "records"), https_proxy="http://127.0.0.1:9"
            )
            assert refused.returncode == 2, refused.stderr
            assert message in refused.stderr
        plan.write_text('device = "cuda"\n' + tiny)
        refused = sweep(60, CUDA_VISIBLE_DEVICES="")
        assert refused.returncode == 2
        assert "preset 'gpu' is made on a GPU, and torch" in refused.stderr
    finally:
        plan.write_text(tiny)
