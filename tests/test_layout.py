"""The house: who imports whom, what is pinned, and the examples that are printed."""

import importlib
import inspect
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

import lsr_core
from lsr_core.objectives import ALIASES, constants_of

ROOT = Path(__file__).parent.parent


def test_modules_import_in_one_direction():
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_every_direct_dependency_is_pinned_installed_and_explained():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    direct = [*project["dependencies"], *(d for extra in project["optional-dependencies"].values() for d in extra)]
    names = {re.split("[><=[]", d)[0] for d in direct}
    pins = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line.startswith("#"):
            continue
        pin, _, reason = line.partition("#")
        name, _, number = pin.strip().partition("==")
        assert reason.strip(), f"{name} is pinned without a reason"
        assert "+" not in number
        pins[name] = number
    assert set(pins) == names
    for name, number in pins.items():
        assert version(name).partition("+")[0] == number, name


def test_versions_agree():
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == lsr_core.__version__
    assert f"version: {lsr_core.__version__}" in (ROOT / "CITATION.cff").read_text()


def examples(path):
    return re.findall(r"```python\n(.*?)```", (ROOT / path).read_text(), re.DOTALL)


def example(path):
    (text,) = examples(path)
    return text


@pytest.mark.parametrize("method", [*lsr_core.METHODS, *ALIASES])
def test_the_printed_loop_serves_every_method(method):
    text = example("README.md")
    assert text == example("book/library.md")
    constants = ", every=2" if method.startswith("mrkd") else ""
    text = text.replace('"mrkd", temperature=4, every=2', f'"{method}"{constants}')
    needs_teacher = method in ALIASES or method.startswith(("kd", "soft", "self", "ladder"))
    if needs_teacher:
        text = text.replace("objective.teacher_logits(model, x)", "torch.randn(25, 10)")
    names = {}
    exec(text, names)
    assert names["loss"].total.isfinite()
    if method.startswith("mrkd"):
        assert names["loss"].soft > 0
        assert names["teacher_logits"].shape == (2, 25, 10)


def test_the_printed_grid_runs():
    names = {}
    text = examples("book/records.md")[0]
    exec(text.replace("epochs=60", "epochs=20").replace("workers=2", "workers=1"), names)
    assert len({record.key for record in names["records"]}) == 8
    assert all(record.diverged_at is None for record in names["records"])


def test_the_printed_images_are_a_data_set(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(examples("book/records.md")[1], names)
    assert names["split"].train_inputs.shape == (100, 3, 32, 32)
    assert names["split"].train_labels.bincount().tolist() == [20] * 5


def test_the_printed_image_runs_are_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, data, runs, _ = examples("book/records.md")
    names = {}
    exec(data, names)
    exec(runs.replace("epochs=2", "epochs=1").replace('"resnet8"', '"resnet8", width=4'), names)
    assert len({record.key for record in names["records"]}) == 4
    assert (tmp_path / "grid.jsonl").read_text().count("\n") == 4


def test_the_printed_loss_is_compared():
    names = {}
    exec(examples("book/records.md")[3].replace("Schedule(0.1)", "Schedule(0.1, epochs=2)"), names)
    assert names["apart"].n == 4
    assert names["verdict"].word


@pytest.mark.slow
def test_torchvision_and_pillow_are_imported_only_where_they_are_used():
    modules = "study.cli, lsr_core.data, lsr_core.augmentation"
    code = f"import sys, {modules}; print(sorted({{'torchvision', 'PIL'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_library_page_names_every_method_with_its_constants():
    page = (ROOT / "book" / "library.md").read_text()
    for name, method in lsr_core.METHODS.items():
        constants = ", ".join(f"`{c}={getattr(method, c)!r}`" for c in constants_of(method)) or "no constants"
        module = method.__module__
        entry = f"`{name}` · {constants}\n: ```{{autodoc2-docstring}} {module}.{method.__name__}\n"
        assert entry in page, name
    for alias, name in ALIASES.items():
        assert f"`{alias}` is `{name}`" in page


@pytest.mark.parametrize("name", ["losses", "teachers", "memory", "metrics", "statistics"])
def test_the_library_page_has_everything_public(name):
    page = (ROOT / "book" / "library.md").read_text()
    module = importlib.import_module(f"lsr_core.{name}")
    for attribute, thing in vars(module).items():
        own = getattr(thing, "__module__", "") == module.__name__
        if own and not attribute.startswith("_") and (inspect.isclass(thing) or inspect.isfunction(thing)):
            assert f"{{autodoc2-object}} lsr_core.{name}.{attribute}\n" in page


def test_the_readme_names_every_method():
    text = (ROOT / "README.md").read_text()
    assert all(f"`{name}`" in text for name in [*lsr_core.METHODS, *ALIASES])
