"""The records of arms side by side."""

from collections.abc import Iterable, Sequence

import numpy as np

from lsr_core.data import dataset
from lsr_core.execute import execute
from lsr_core.store import Record, Store

from .arms import SWEEP_SEEDS, Arm, Setting
from .measures import MEASURES


class Results:
    """The records of arms, seed by seed; all arms begin with the same seeds."""

    def __init__(self, records: dict[Arm, list[Record]]) -> None:
        self._records = records

    def __or__(self, other: "Results") -> "Results":
        """The arms of both."""
        return Results(self._records | other._records)

    def values(self, arm: Arm, metric: str) -> np.ndarray:
        """One value a seed. A diverged run counts at chance level: accuracy 1/K, likelihood of the uniform guess.

        A metric that has no chance level, or that a run does not have, is nan.
        """
        chance = _chance(arm.setting)
        measured = [None if r.diverged_at is not None else r.metrics.get(metric, np.nan) for r in self._records[arm]]
        return np.array([chance[metric] if value is None else value for value in measured])

    def differences(self, arm: Arm, control: Arm, metric: str) -> np.ndarray:
        """Arm minus control, one value for each seed that both have."""
        pairs = zip(self.values(arm, metric), self.values(control, metric), strict=False)
        return np.array([value - other for value, other in pairs])

    def counted(self, *lines: dict[str, dict[float, Arm]] | dict[str, Arm]) -> str:
        """How many seeds the arms of some lines have, for a caption: `20`, or `20 to 60`."""
        counts = sorted({len(self._records[arm]) for arm in flat(*lines)})
        return " to ".join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))

    def diverged(self, arm: Arm) -> float:
        """The share of the arm's runs that diverged."""
        return float(np.mean([record.diverged_at is not None for record in self._records[arm]]))

    @property
    def arms(self) -> list[Arm]:
        """All arms, in the order in which they were asked for."""
        return list(self._records)

    def records(self, arm: Arm) -> list[Record]:
        """The arm's records, in the order of the seeds."""
        return self._records[arm]


def collect(
    arms: Iterable[Arm],
    seeds: Sequence[int],
    sweeps: Iterable[Arm] = (),
    store: Store | None = None,
    workers: int = 1,
) -> Results:
    """Results of arms for all seeds and of `sweeps` for the first 10, trained where missing, by so many processes."""
    wanted = {**dict.fromkeys(sweeps, seeds[:SWEEP_SEEDS]), **dict.fromkeys(arms, seeds)}
    records = iter(execute([run for arm, own in wanted.items() for run in arm.runs(own)], store, workers))
    return Results({arm: [next(records) for _ in own] for arm, own in wanted.items()})


def flat(*lines: dict[str, dict[float, Arm]] | dict[str, Arm]) -> list[Arm]:
    """All arms of some lines, or of some names."""
    found = [line for group in lines for line in group.values()]
    return [arm for line in found for arm in (line.values() if isinstance(line, dict) else [line])]


def _chance(setting: Setting) -> dict[str, float]:
    """What a network at chance level scores; its calibration error is that of a sure guess."""
    classes = dataset(setting.data).classes
    accuracies = dict.fromkeys(("accuracy", "validation_accuracy", "train_accuracy"), 1 / classes)
    likelihoods = dict.fromkeys(("nll", "nll_scaled", "validation_nll", "train_nll"), float(np.log(classes)))
    divergences = dict.fromkeys(("kl_posterior", "kl_posterior_scaled"), float(np.log(classes)))
    chance = {**accuracies, **likelihoods, **divergences, "kl_dark": float(np.log(classes - 1)), "ece": 1 - 1 / classes}
    return {**dict.fromkeys(MEASURES, np.nan), **chance}
