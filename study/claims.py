"""The claims of `claims.toml`: each a comparison of arms on one metric, with the values that its records give it."""

import tomllib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from lsr_core import statistics
from lsr_core.run import Run
from lsr_core.statistics import Kind, Paired

from .arms import arm_of
from .paper_values import quote
from .results import MEASURES, Results
from .settings import CIFAR, DIGITS, Setting

Term = tuple[float, Run]
Estimator = Callable[[Results, Sequence[Run]], np.ndarray | Paired]


@dataclass(frozen=True)
class Claim:
    """A weighted sum of arms' values on a metric, seed by seed, is positive (or near zero); `chapter` is its notebook.

    Most claims have two `terms`, a method and its control; an interaction has four. An `estimator` makes the values,
    one a seed, from the arms' records where a sum does not; an association is summed up by its own.
    """

    id: str
    paper: str
    text: str
    chapter: str
    terms: tuple[Term, ...]
    metric: str = "accuracy"
    kind: Kind = "better"
    estimator: Estimator | None = None

    @property
    def printed(self) -> str:
        """What the paper prints, and where."""
        return quote(self.id)

    @property
    def arms(self) -> list[Run]:
        """The arms that are compared."""
        return [arm for _, arm in self.terms]

    @property
    def setting(self) -> Setting:
        """Where the method is tried."""
        return Setting(self.arms[0].data, self.arms[0].train)

    def values(self, results: Results) -> np.ndarray | Paired:
        """One value a seed in the metric's unit, positive where the claim says so; an association summed up."""
        if self.estimator is not None:
            return self.estimator(results, self.arms)
        measure = MEASURES[self.metric]
        sign = 1 if measure.higher_is_better else -1
        return sign * measure.scale * self._sum(results, self.terms)

    def side_arms(self, sign: int) -> list[Run]:
        """The arms of the method (`sign` 1) or of its control (−1)."""
        return [arm for weight, arm in self.terms if weight * sign > 0]

    def side(self, results: Results, sign: int) -> np.ndarray:
        """The metric of the method (`sign` 1) or of its control (−1), one value a seed, as it was measured."""
        return self._sum(results, [(abs(weight), arm) for weight, arm in self.terms if weight * sign > 0])

    def _sum(self, results: Results, terms: Iterable[Term]) -> np.ndarray:
        seeds = results.seeds(*self.arms)
        return np.sum([weight * results.values(arm, self.metric, seeds) for weight, arm in terms], 0)


def slope(results: Results, compared: Sequence[Run]) -> np.ndarray:
    """How many points students gain for ten points of their teachers' accuracy; teachers first, then students."""
    seeds = results.seeds(*compared)
    teachers, students = np.split(np.array([100 * results.values(arm, "accuracy", seeds) for arm in compared]), 2)
    centred = teachers - teachers.mean(0)
    return 10 * (centred * students).sum(0) / (centred**2).sum(0)


def gain_with_diversity(results: Results, compared: Sequence[Run]) -> Paired:
    """Across seeds, a student's gain over its teacher with the teacher's diversity, given its uncertainty.

    Given the teacher's accuracy too: the gain is over the teacher, so that a lucky teacher has little to give.
    """
    student, teacher = compared
    seeds = results.seeds(student, teacher)
    gain = results.differences(student, teacher, "accuracy")
    rows = [gain, *(results.values(teacher, metric, seeds) for metric in ("diversity", "uncertainty", "accuracy"))]
    gain, diversity, *given = np.array(rows)[:, np.isfinite(rows).all(0)]
    return statistics.association(gain, diversity, given)


def nearer_to_log_2(results: Results, compared: Sequence[Run]) -> np.ndarray:
    """How much nearer to log 2 the method takes the mutual information than its control does."""
    seeds = results.seeds(*compared)
    method, control = (abs(results.values(arm, "information", seeds) - np.log(2)) for arm in compared)
    return control - method


def best_over_last(results: Results, compared: Sequence[Run]) -> np.ndarray:
    """How much the best of the stated epochs flatters the last one, beyond the margin of 0.1 points."""
    curves = [np.array(record.curves["test_accuracy"]) for record in results.records(*compared)]
    return np.array([100 * (curve.max() - curve[-1]) - 0.1 for curve in curves])


_ESTIMATORS = {each.__name__: each for each in (slope, gain_with_diversity, nearer_to_log_2, best_over_last)}


def _claims(group: dict[str, Any]) -> list[Claim]:
    """The claims of a group: each in each of its settings, or once over all that it is the mean of."""
    tried = [[Setting(*setting)] for setting in group.get("settings", [])]
    once = [[Setting(*setting) for setting in group.get("mean_over", [])]]
    return [_claim(group, entry, settings) for settings in tried or once for entry in group["claims"]]


def _claim(group: dict[str, Any], entry: dict[str, Any], settings: list[Setting]) -> Claim:
    name, text, estimator = entry["id"], entry["text"], entry.get("estimator")
    if "settings" in group:
        (setting,) = settings
        name += f"-{setting.train if setting in DIGITS else setting.data.rpartition('-')[2]}"
        text = text.format(setting=setting) if "{setting}" in text else f"{text} ({setting})"
    judged = {option: entry[option] for option in ("metric", "kind") if option in entry}
    terms = _terms(entry, settings)
    return Claim(name, group["paper"], text, group["chapter"], terms, **judged, estimator=_ESTIMATORS.get(estimator))


def _terms(entry: dict[str, Any], settings: list[Setting]) -> tuple[Term, ...]:
    if "terms" in entry:
        return tuple((weight, arm_of(call, Setting(*[*own, *settings][0]))) for weight, call, *own in entry["terms"])
    networks = [{"network": network} for network in entry.get("networks", [])] or [{}]
    cases = list(product(settings, networks))
    return tuple(
        (sign / len(cases), arm_of(entry[side], setting, **network))
        for sign, side in ((1, "method"), (-1, "control"))
        for setting, network in cases
    )


def _on_cifar(name: str) -> Claim:
    """A claim of the quick preset on CIFAR-100."""
    group, entry = next((g, entry) for g in _CONTENT["quick"] for entry in g["claims"] if entry["id"] == name)
    return _claim(group | {"settings": [CIFAR]}, entry, [CIFAR])


_CONTENT = tomllib.loads(Path(__file__).with_name("claims.toml").read_text())
UNTESTED: list[dict[str, str]] = _CONTENT["untested"]  # claims that no preset can judge, and why
CLAIMS: dict[str, tuple[Claim, ...]] = {
    "quick": tuple(claim for group in _CONTENT["quick"] for claim in _claims(group)),
    "desktop": (
        *map(_on_cifar, _CONTENT["also_at_desktop"]),
        *(claim for group in _CONTENT["desktop"] for claim in _claims(group)),
    ),
}


def judged(compared: Iterable[Run]) -> list[Run]:
    """Those of some arms on which a claim of any chapter rests."""
    known = {arm for claim in CLAIMS["quick"] for arm in claim.arms}
    return [arm for arm in compared if arm in known]
