"""The records of arms side by side, and how each metric is printed and judged. Arms are paired by seed."""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lsr_core import statistics
from lsr_core.data import dataset
from lsr_core.execute import execute
from lsr_core.run import Run
from lsr_core.store import Record, Store

SWEEP_SEEDS = 10  # of an arm on which no claim rests: it shows a shape and decides nothing

Line = Mapping[float | str, Run]  # from the constant that varies to its arm


@dataclass(frozen=True, kw_only=True)
class Measure:
    """How a metric is printed and judged: its name, the factor to its unit, the margin δ of a difference in it."""

    name: str
    unit: str = ""
    scale: float = 1
    margin: float
    higher_is_better: bool = False
    digits: int

    @property
    def label(self) -> str:
        """The metric with its unit."""
        return self.change.replace("points", "%")

    @property
    def change(self) -> str:
        """A difference in the metric with its unit."""
        return f"{self.name}, {self.unit}".removesuffix(", ")


_MEASURES_FILE = Path(__file__).with_name("measures.toml")
MEASURES = {name: Measure(**entry) for name, entry in tomllib.loads(_MEASURES_FILE.read_text(encoding="utf-8")).items()}


class Effect(NamedTuple):
    """A mean over n values with its 95 % interval, printed with so many decimal places."""

    mean: float
    low: float
    high: float
    n: int
    digits: int

    @property
    def text(self) -> str:
        """The mean with its interval, signs written out."""
        return signed(self.mean, (self.low, self.high), self.digits)

    @property
    def unsigned(self) -> str:
        """The mean with its interval, of a quantity that is no difference."""
        return f"{self.mean:.{self.digits}f} [{self.low:.{self.digits}f}, {self.high:.{self.digits}f}]".replace(
            "-", "−"
        )


def effect_of(values: Sequence[float], digits: int = 2) -> Effect:
    """The mean of values with its 95 % interval."""
    return Effect(*statistics.mean_interval(values), len(values), digits)


def signed(mean: float, interval: Sequence[float], digits: int) -> str:
    """A difference with its interval, signs written out."""
    low, high = interval
    return f"{mean:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]".replace("-", "−")


class Results:
    """The records of arms by seed. Arms, the templates of runs, may have different seeds."""

    def __init__(self, records: Mapping[Run, Iterable[Record]]) -> None:
        self._records = {arm: {record.run["seed"]: record for record in own} for arm, own in records.items()}

    def __or__(self, other: "Results") -> "Results":
        """The arms of both."""
        both = Results({})
        both._records = self._records | other._records
        return both

    @property
    def arms(self) -> list[Run]:
        """All arms, in the order in which they were asked for."""
        return list(self._records)

    def records(self, arm: Run) -> list[Record]:
        """The arm's records, in the order of the seeds."""
        return list(self._records[arm].values())

    def seeds(self, *arms: Run) -> list[int]:
        """The seeds that all of these arms have, in the order of the first one's."""
        first, *others = (self._records[arm] for arm in arms)
        return [seed for seed in first if all(seed in other for other in others)]

    def values(self, arm: Run, metric: str, seeds: Sequence[int] | None = None) -> np.ndarray:
        """One value a seed, of all the arm's seeds or of these.

        A failed run counts at chance level: accuracy 1/K, likelihood of the uniform guess. A metric that has no
        chance level, or that a run does not have, is nan.
        """
        found, chance = self._records[arm], chance_levels(arm.data)
        records = [found[seed] for seed in (found if seeds is None else seeds)]
        measured = [None if r.failure else r.metrics.get(metric, np.nan) for r in records]
        return np.array([chance[metric] if value is None else value for value in measured])

    def differences(self, arm: Run, control: Run, metric: str) -> np.ndarray:
        """Arm minus control, one value for each seed that both have."""
        seeds = self.seeds(arm, control)
        return self.values(arm, metric, seeds) - self.values(control, metric, seeds)

    def effect(self, arm: Run, control: Run, metric: str) -> Effect:
        """The mean paired difference of an arm to its control in the metric's unit, with its 95 % interval."""
        measure = MEASURES[metric]
        return effect_of(measure.scale * self.differences(arm, control, metric), measure.digits)

    def counted(self, *lines: Mapping[str, Run | Line]) -> str:
        """How many seeds the arms of some lines have, for a caption: `20`, or `20 to 60`."""
        counts = sorted({len(self._records[arm]) for arm in flat(*lines)})
        return " to ".join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))

    def failed(self, arm: Run) -> float:
        """The share of the arm's runs that failed."""
        return float(np.mean([record.failure is not None for record in self.records(arm)]))

    def without_failed(self, arms: Sequence[Run]) -> "Results":
        """These arms on the seeds on which none of them failed."""
        sound = [s for s in self.seeds(*arms) if not any(self._records[arm][s].failure for arm in arms)]
        return Results({arm: [self._records[arm][seed] for seed in sound] for arm in arms})


def collect(
    arms: Iterable[Run],
    seeds: Sequence[int],
    sweeps: Iterable[Run] = (),
    store: Store | None = None,
    workers: int = 1,
) -> Results:
    """Results of `arms` for all seeds and of `sweeps` for the first 10; missing runs are trained first.

    An arm on which a claim rests belongs to the first, one that shows a shape to the second; an arm of both has all
    seeds. `workers` is the number of processes that train.
    """
    wanted = {**dict.fromkeys(sweeps, seeds[:SWEEP_SEEDS]), **dict.fromkeys(arms, seeds)}
    records = iter(execute([run for arm, own in wanted.items() for run in arm.runs(own)], store, workers))
    return Results({arm: [next(records) for _ in own] for arm, own in wanted.items()})


def flat(*lines: Mapping[str, Run | Line]) -> list[Run]:
    """All arms of some lines, or of some names."""
    found = [line for group in lines for line in group.values()]
    return [arm for line in found for arm in (line.values() if isinstance(line, Mapping) else [line])]


def chance_levels(data: str) -> dict[str, float]:
    """What a network at chance level scores; its calibration error is that of a sure guess, and its BLEU 0."""
    classes = dataset(data).classes
    accuracies = dict.fromkeys(("accuracy", "validation_accuracy", "train_accuracy"), 1 / classes)
    likelihoods = dict.fromkeys(("nll", "nll_scaled", "validation_nll", "train_nll"), float(np.log(classes)))
    divergences = dict.fromkeys(("kl_posterior", "kl_posterior_scaled"), float(np.log(classes)))
    dark = dict.fromkeys(("kl_dark", "kl_dark_scaled"), float(np.log(classes - 1)))
    chance = {**accuracies, **likelihoods, **divergences, **dark, "ece": 1 - 1 / classes, "bleu_beam": 0.0}
    return {**dict.fromkeys(MEASURES, np.nan), **chance}
