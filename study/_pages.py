"""What is known of the book's pages before they are run: which would stay as they are, and what is to train."""

import hashlib
import importlib.metadata
import json
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lsr_core.files import write_whole
from lsr_core.store import Store, provenance
from lsr_core.trainer import train

from .experiments import DIGITS, tuned

RESULTS = Path(__file__).parent.parent / "results"
COST = RESULTS / "quick.json"
_DRAWN_WITH = ("matplotlib", "myst-nb", "pandas", "papermill", "seaborn", "sympy")
_PROBE = 32, 6  # runs and epochs of the training that is timed


class Pages:
    """The executed notebooks of a folder, each with a hash of everything that fixes it."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / ".pages.json"
        self._folder = folder
        self._known = json.loads(self._path.read_text()) if self._path.exists() else {}

    def unchanged(self, notebook: Path, given: Mapping[str, Any]) -> dict[str, Any] | None:
        """How the notebook ended, where running it again would change nothing."""
        known = self._known.get(notebook.stem)
        same = (
            known is not None and (self._folder / notebook.name).exists() and known["state"] == _state(notebook, given)
        )
        return known["outcome"] if same else None

    def keep(self, notebook: Path, given: Mapping[str, Any], outcome: dict[str, Any] | None) -> None:
        """Note how the notebook ended; None where it was not done."""
        self._known.pop(notebook.stem, None)
        if outcome is not None:
            self._known[notebook.stem] = {"state": _state(notebook, given), "outcome": outcome}
        write_whole(self._path, json.dumps(self._known, indent=1).encode())


def _state(notebook: Path, given: Mapping[str, Any]) -> str:
    made = {name: value for name, value in provenance().items() if name != "commit"}
    versions = [importlib.metadata.version(name) for name in _DRAWN_WITH]
    fixed = hashlib.sha256(json.dumps([made, versions, dict(given)], sort_keys=True).encode())
    for path in (notebook, *sorted(RESULTS.rglob("*.json*")), *sorted(Path(__file__).parent.rglob("*.py"))):
        fixed.update(path.read_bytes())
    return fixed.hexdigest()[:20]


def forecast(workers: int) -> str:
    """How many runs the book lacks, and about how long it takes to make it on this machine, in a sentence.

    A short training is timed; `results/quick.json` says how many times as long everything takes.
    """
    cost = json.loads(COST.read_text())
    missing = max(0, cost["runs"] - len(Store().keys()))
    probes = cost["pages"] + cost["training"] * missing / cost["runs"]
    minutes = _probe() * probes / workers / 60
    what = f"about {missing:,} runs are to be made" if missing else "the runs are there"
    return f"{what}; with the pages that takes about {max(1, round(minutes))} min on this machine"


def measure_cost(store: Store, seconds_of_pages: float) -> dict[str, float]:
    """The content of `results/quick.json`, from a store that holds the book's runs and nothing else.

    `seconds_of_pages` is how long one core takes to run all notebooks with that store.
    """
    seconds, probe = [record.seconds for record in store], _probe()
    return {
        "runs": len(seconds),
        "training": round(sum(seconds) / probe),
        "pages": round(seconds_of_pages / probe),
    }


def _probe() -> float:
    """Seconds of a short training, the less of two."""
    runs, epochs = _PROBE
    arm = tuned(DIGITS[0], "lsr")
    arm = replace(arm, schedule=replace(arm.schedule, epochs=epochs))
    return min(_timed(arm.runs(range(runs))) for _ in range(2))


def _timed(runs: list[Any]) -> float:
    start = time.perf_counter()
    train(runs)
    return time.perf_counter() - start
