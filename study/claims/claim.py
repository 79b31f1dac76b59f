"""A claim: a comparison of arms on one metric, with a direction."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lsr_core.statistics import Kind, Paired

from ..experiments import DIGITS, MEASURES, Arm, Results, Setting, arm
from ..paper_values import quote

YUAN, WANG, ZHANG, SHEN = "Yuan 2020", "Wang 2020, 2021", "Zhang & Sabuncu 2020", "Shen 2021"
MULLER, NEIGHBOURS, OWN = "Müller 2019", "neighbours", "this study"

Estimator = Callable[[Results, Setting], np.ndarray | Paired]
Term = tuple[float, Setting, str]


@dataclass(frozen=True)
class Claim:
    """A weighted sum of arms' values on a metric, seed by seed, is positive (or near zero); `chapter` is its notebook.

    The arms are named as in `experiments.arm`. Most claims have two `terms`, a method and its control; an interaction
    has four. An `estimator` makes the values, one a seed, from the arms' records where a sum does not; an association
    is summed up by its own.
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
    def arms(self) -> list[Arm]:
        """The arms that are compared."""
        return [arm(setting, name) for _, setting, name in self.terms]

    def values(self, results: Results) -> np.ndarray | Paired:
        """One value a seed in the metric's unit, positive where the claim says so; an association summed up."""
        measure = MEASURES[self.metric]
        if self.estimator is not None:
            return self.estimator(results, self.terms[0][1])
        sign = 1 if measure.higher_is_better else -1
        parts = [w * results.values(arm(setting, name), self.metric) for w, setting, name in self.terms]
        return sign * measure.scale * np.sum(parts, 0)

    def side_arms(self, sign: int) -> list[Arm]:
        """The arms of the method (`sign` 1) or of its control (−1)."""
        return [arm(setting, name) for w, setting, name in self.terms if w * sign > 0]

    def side(self, results: Results, sign: int) -> np.ndarray:
        """The metric of the method (`sign` 1) or of its control (−1), one value a seed, as it was measured."""
        parts = [abs(w) * results.values(arm(s, name), self.metric) for w, s, name in self.terms if w * sign > 0]
        return np.sum(parts, 0)

    @property
    def setting(self) -> Setting:
        """Where the method is tried."""
        return self.terms[0][1]


def versus(setting: Setting, method: str, control: str) -> tuple[Term, ...]:
    """The terms of a method against its control."""
    return (1, setting, method), (-1, setting, control)


def pairs(
    paper: str, chapter: str, settings: Sequence[Setting], *rows: tuple[str, str, str, str, str, Kind]
) -> list[Claim]:
    """Claims of a method against its control: id, text, method, control, metric, kind."""
    return [
        Claim(
            f"{name}-{s.train if s in DIGITS else s.data.rpartition('-')[2]}",
            paper,
            f"{text} ({s})",
            chapter,
            versus(s, method, control),
            metric,
            kind,
        )
        for s in settings
        for name, text, method, control, metric, kind in rows
    ]
