import gc
import hashlib
import http.server
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from unittest import mock

import archives
import made_language
import numpy as np
import pytest
import torch
from filelock import FileLock
from playwright.sync_api import sync_playwright
from sklearn.datasets import load_digits

from lsr_core import InputError, precision
from lsr_core.data import DATASETS, Translation, dataset, translation
from lsr_core.data.registry import source_of
from lsr_core.store import Store
from study import build, handout

gc.set_threshold(200_000, 50, 1000)  # of the many objects that records make, hardly one is garbage

ROOT = Path(__file__).parent.parent
BOOKS = os.environ.get("LSR_STORE")  # where `make book` kept its records, before a test has a store of its own


@pytest.fixture(autouse=True)
def own_store(tmp_path, monkeypatch):
    """Every test has an empty store of its own, and an empty folder for data sets; nothing is timed to train images."""
    monkeypatch.setattr(precision, "gain", lambda *_: 1.0)
    monkeypatch.setenv("LSR_STORE", str(tmp_path / "records"))
    monkeypatch.setenv("LSR_DATA", str(tmp_path / "data"))
    return Store()


@pytest.fixture
def image_arrays():
    """A small set of images in the uniform form: 3 classes in 2 superclasses, 60 images to train on, 12 to test."""
    random = np.random.default_rng(0)
    arrays = {"class_names": np.array(["ant", "bee", "cat"])}
    for part, count in (("train", 60), ("test", 12)):
        labels = np.arange(count) % 3
        arrays[f"{part}_images"] = random.integers(0, 256, (count, 6, 5, 3), dtype=np.uint8)
        arrays[f"{part}_labels"], arrays[f"{part}_superclass_labels"] = labels, labels // 2
    arrays["test_label_counts"] = random.integers(1, 9, (12, 3))
    return arrays


@pytest.fixture
def sentences(own_store, monkeypatch):  # noqa: ARG001
    """A made corpus in the place of Multi30k; its source."""
    made_language.write(made_language.made_pairs())
    unknown = Translation(made_language.NAME, 0, "", 60)
    examples = unknown.encoded(unknown.pairs(translation.PARTS[:2]))
    found = hashlib.sha256(examples.numpy().tobytes() + unknown.test[0].numpy().tobytes()).hexdigest()[:16]
    monkeypatch.setattr(Translation, "validation", 30)
    monkeypatch.setitem(DATASETS, made_language.NAME, Translation(made_language.NAME, len(examples), found, 60))
    source_of.cache_clear()
    translation.lines.cache_clear()
    yield dataset(made_language.NAME)
    source_of.cache_clear()
    translation.lines.cache_clear()


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A folder and the address under which its files are served."""
    folder = tmp_path / "served"
    folder.mkdir()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(archives.Handler, directory=folder))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory):
    """Names of real data sets to the folder that they are unpacked into; skips where there are none."""
    packed = Path(os.environ.get("LSR_TEST_DATA") or ROOT.parent / "shared" / "data")
    folder = tmp_path_factory.mktemp("unpacked")

    def unpack(name):
        if not (packed / "unpack.py").exists():
            pytest.skip(f"there is no unpack.py in {packed}; LSR_TEST_DATA names the folder of the real data")
        if not (folder / f"{name}.npz").exists():
            subprocess.run([sys.executable, packed / "unpack.py", folder, name], check=True, capture_output=True)
        return folder

    return unpack


@pytest.fixture(scope="session")
def image_file(tmp_path_factory):
    """A user's own file of images: real digits, enlarged to 32×32 pixels."""
    images, labels = load_digits(return_X_y=True)
    large = np.kron(images.reshape(-1, 8, 8) * 15, np.ones((4, 4))).astype(np.uint8)[..., None]
    path = tmp_path_factory.mktemp("images") / "digits32.npz"
    train, test = slice(0, 300), slice(1000, 1120)
    parts = {"train_images": large[train], "train_labels": labels[train], "test_images": large[test]}
    np.savez(path, **parts, test_labels=labels[test], class_names=np.array([str(k) for k in range(10)]))
    return path


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def browser():
    try:
        path = handout.chromium()
    except InputError as error:
        pytest.skip(str(error))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=handout.QUIET)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def common(tmp_path_factory):
    """A folder that all processes of this test run share, and a lock of it."""
    own = tmp_path_factory.getbasetemp()
    folder = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    return folder, FileLock(folder / "common.lock")


@pytest.fixture(scope="session")
def tiny_book(common):
    """The book's folder with every notebook executed at a tiny size, once, and the outcomes."""
    folder, lock = common[0] / "tiny" / "book", common[1]
    outcomes = folder.parent / "outcomes.json"
    with lock:
        if not outcomes.exists():
            shutil.rmtree(folder.parent, ignore_errors=True)  # of an attempt that failed
            folder.parent.mkdir()
            outcomes.write_text(json.dumps([asdict(outcome) for outcome in executed_book(folder)]))
    return folder, [build.Outcome(**outcome) for outcome in json.loads(outcomes.read_text())]


def executed_book(folder):
    """Execute every notebook for two seeds into a copy of the book's folder; what `make book` trained is there."""
    kept, here = Store(BOOKS), Store(folder.parent / "records")
    keys = kept.keys()
    for key in keys:
        with suppress(InputError):  # damaged, or of a data set that is gone
            if (record := kept.get(key)).run["seed"] < 2:
                here.put(record)
    (folder.parent / "lsr_core").symlink_to(ROOT / "lsr_core")  # the library page reads its docstrings
    shutil.copytree(ROOT / "book", folder, ignore=shutil.ignore_patterns("_build", "*.ipynb", "status.md", ".executed"))
    plan = build.accepted([], {"seeds": 2})
    chapters = [name for name in plan if name not in build.SUMMARIES]
    outcomes = []
    with (
        mock.patch.dict(os.environ, LSR_STORE=str(here.folder)),
        ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool,
    ):
        for wave in (chapters, build.SUMMARIES):
            waiting = [pool.submit(build.execute, build.FOLDER / f"{n}.ipynb", plan[n], folder) for n in wave]
            outcomes += [future.result() for future in waiting]
    (folder / "status.md").write_text(build.status_page(build.names(), folder))
    return outcomes


@pytest.fixture(scope="session")
def built_book(tiny_book, common):
    """The HTML of the tiny book, built once as `make book` builds it."""
    folder, errors = tiny_book[0], tiny_book[0].parent / "errors.txt"
    with common[1]:
        if not errors.exists():
            command = [
                Path(sys.executable).with_name("jupyter-book"),
                "build",
                "-q",
                "-W",
                "-n",
                "--keep-going",
                folder,
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            errors.write_text("" if done.returncode == 0 else done.stdout + done.stderr)
            handout.slides(folder, folder / "_build" / "html" / "slides")
    assert errors.read_text() == ""
    return folder / "_build" / "html"
