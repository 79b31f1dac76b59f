"""The search for constants: a method's trials, judged by validation accuracy at the last epoch."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from lsr_core.objectives import describe
from lsr_core.run import Run
from lsr_core.store import Store

from .plans import plan
from .results import Results, collect
from .settings import Setting
from .tuning import BASELINE, Cell, Row, best_trial, cells, protocol, rows_of, trial

_NO_KNOBS = {"validation_accuracy", "validation_nll", "train_accuracy", "failed", "diverged"}  # of a row's values
_FACTORS = (0.5, 2.0)  # of the weight decay, tried last


def tune(method: str, setting: Setting, store: Store | None = None, workers: int = 1) -> list[Row]:
    """Run a method's trials: a row a trial with its validation figures, in the order of the trials.

    Every trial on all tuning seeds; where a plan has rounds, in these. Raises `InputError` for a method that has no
    trials.
    """
    rows = partial(_rows, method, setting, store, workers)
    if not has_rounds(setting):
        return rows(cells(method, setting), protocol(setting).trial_seeds)
    return _in_rounds(rows, cells(method, setting), plan(setting.study).content["tuning"])


def has_rounds(setting: Setting) -> bool:
    """Whether a plan lets trials go in rounds here."""
    return bool(setting.study) and "kept" in plan(setting.study).content.get("tuning", {})


def _rows(
    method: str, setting: Setting, store: Store | None, workers: int, tried: Sequence[Cell], seeds: Sequence[int]
) -> list[Row]:
    """A method's trials of these knobs on these seeds, a row each."""
    arms = [trial(method, setting, cell) for cell in tried]
    results = collect(arms, seeds, store=store, workers=workers)
    return [_row(method, setting, arm, results) for arm in arms]


def _row(method: str, setting: Setting, arm: Run, results: Results) -> Row:
    judged_by = ("validation_accuracy", "validation_nll", "train_accuracy")
    values = {metric: results.values(arm, metric) for metric in judged_by}
    study = {"study": setting.study} if setting.study else {}
    return {
        "data": setting.data,
        "train": setting.train,
        **study,
        **describe(arm.objective),
        "method": method,
        "learning_rate": arm.schedule.learning_rate,
        "weight_decay": arm.schedule.weight_decay,
        "seeds": len(results.records(arm)),
        **{metric: round(float(found.mean()), 6) for metric, found in values.items()},
        **({"accuracies": values["validation_accuracy"].round(6).tolist()} if study else {}),
        "failed": results.failed(arm),
    }


def _in_rounds(
    rows_of_trials: Callable[[Sequence[Cell], Sequence[int]], list[Row]], tried: list[Cell], tuning: dict[str, Any]
) -> list[Row]:
    """All trials on the first seeds, the best again on all; then steps beyond an edge, and other weight decays."""
    seeds = tuning["seeds"]
    rows = rows_of_trials(tried, seeds[: tuning.get("first", 1)])
    best = sorted(range(len(rows)), key=lambda i: _rank(rows[i]), reverse=True)[: tuning["kept"]]
    for i, row in zip(best, rows_of_trials([tried[i] for i in best], seeds), strict=True):
        rows[i] = row

    def chosen() -> Cell:
        return tried[rows.index(best_trial(rows))]

    def add(more: Sequence[Cell]) -> None:
        rows.extend(rows_of_trials(more, seeds))
        tried.extend(more)

    for _ in range(tuning["steps"]):
        add(_beyond(chosen(), tried, tuning["ladders"])[:1])
    if best_trial(rows)["weight_decay"]:
        add(_other_decays(chosen()))
    return rows


def _rank(row: Row) -> tuple[float, float]:
    return row["validation_accuracy"], -row["validation_nll"]


def _beyond(chosen: Cell, tried: Sequence[Cell], ladders: dict[str, list[float]]) -> list[Cell]:
    """The chosen knobs with one that lies on the edge of its tried values taken to the next value of its ladder."""
    found = []
    for name, value in chosen.items():
        values = sorted({cell[name] for cell in tried})
        if len(values) > 1 and name in ladders:
            lower = [step for step in ladders[name] if step < values[0]][-1:] if value == values[0] else []
            higher = [step for step in ladders[name] if step > values[-1]][:1] if value == values[-1] else []
            found += [chosen | {name: step} for step in lower + higher]
    return found


def _other_decays(chosen: Cell) -> list[Cell]:
    name = "weight_decay" if "weight_decay" in chosen else "decay_share"
    return [chosen | {name: factor * chosen.get(name, 1.0)} for factor in _FACTORS]


class Place(NamedTuple):
    """A tuned constant, all values that were tried of it, and where it lies among them: inside, edge or bound.

    A bound is the end of the ladder too, beyond which the plan does not go.
    """

    name: str
    value: float
    tried: list[float]
    where: str


def places(method: str, setting: Setting) -> list[Place]:
    """Where each tuned constant of a method lies in its grid, of a study with a plan."""
    rows, found = rows_of(setting, method), []
    best, ladders = best_trial(rows), plan(setting.study).content["tuning"]["ladders"]
    bounds = {name: {values[0], values[-1]} for name, values in ladders.items()}
    if method != BASELINE:
        bounds["learning_rate"] = {max(row["learning_rate"] for row in rows)}  # the baseline's
    for name in (name for name in best if name not in _NO_KNOBS):
        tried = sorted({row[name] for row in rows if isinstance(row[name], float)})
        if len(tried) > 1:
            on_edge = best[name] in (tried[0], tried[-1])
            where = "bound" if on_edge and best[name] in bounds.get(name, ()) else "edge" if on_edge else "inside"
            found.append(Place(name, best[name], tried, where))
    return found


def error_of_choice(rows: Sequence[Row]) -> float:
    """The standard error, in points, of the difference between the best trial and the next, over the tuning seeds.

    NaN where there was one seed or one such trial.
    """
    finalists = [row for row in rows if row["seeds"] == max(row["seeds"] for row in rows)]
    if len(finalists) < 2:
        return np.nan
    best, second = sorted(finalists, key=_rank, reverse=True)[:2]
    differences = 100 * (np.array(best["accuracies"]) - np.array(second["accuracies"]))
    return float(differences.std(ddof=1) / np.sqrt(len(differences))) if len(differences) > 1 else np.nan
