"""Tables of results."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lsr_core import statistics

from .arms import Arm
from .measures import MEASURES
from .results import Results


def table(results: Results, arms: dict[str, Arm], control: str, metrics: Sequence[str]) -> pd.DataFrame:
    """A row an arm: n; for each metric its mean and the paired difference to the control with its 95 % interval.

    Training accuracy and diverged runs stand in every row.
    """
    rows = []
    for label, arm in arms.items():
        row: dict[str, object] = {"arm": label, "n": len(results.records(arm))}
        for metric in metrics:
            measure = MEASURES[metric]
            mean = measure.scale * results.values(arm, metric).mean()
            row[measure.label] = f"{mean:.{measure.digits}f}".replace("-", "−")
            differences = measure.scale * results.differences(arm, arms[control], metric)
            change, *interval = statistics.mean_interval(differences)
            row[f"Δ {measure.change} [95 %]"] = "–" if label == control else signed(change, interval, measure.digits)
        row["training accuracy, %"] = f"{100 * results.values(arm, 'train_accuracy').mean():.1f}"
        row["diverged"] = round(results.diverged(arm) * len(results.records(arm)))
        rows.append(row)
    return pd.DataFrame(rows).set_index("arm")


def interactions(effects: dict[str, dict[str, np.ndarray]]) -> pd.DataFrame:
    """Effects in points, one value a seed, a row and a column each, and each column's effect minus the first column's.

    All are means with 95 % intervals.
    """
    rows = {}
    for label, row in effects.items():
        first, *others = row
        against = {f"{name} against {first}": row[name] - row[first] for name in others}
        means = {name: statistics.mean_interval(values) for name, values in {**row, **against}.items()}
        rows[label] = {name: signed(mean, interval, 2) for name, (mean, *interval) in means.items()}
    return pd.DataFrame.from_dict(rows, orient="index")


def single_table(results: Results, *, test: bool) -> pd.DataFrame:
    """A row an arm of one run, with what it makes of training and validation images, and of `test` images or not."""
    rows = []
    for arm in results.arms:
        (record,) = results.records(arm)
        rows.append(
            {
                "data": str(arm.setting),
                "network": f"{arm.network.architecture}, width {arm.network.width}",
                "epochs": arm.schedule.epochs,
                "crops, pixels": arm.augmentation.padding,
                "learning rate": f"{arm.schedule.learning_rate:g}",
                "decay": f"{arm.schedule.weight_decay:g}",
                "training accuracy, %": f"{100 * record.metrics['train_accuracy']:.1f}",
                "validation accuracy, %": f"{100 * record.metrics['validation_accuracy']:.1f}",
                **({"test accuracy, %": f"{100 * record.metrics['accuracy']:.1f}"} if test else {}),
                "seconds": f"{record.seconds:.0f}",
            }
        )
    return pd.DataFrame(rows).set_index("data")


def signed(mean: float, interval: Sequence[float], digits: int) -> str:
    """A difference with its interval, signs written out."""
    low, high = interval
    return f"{mean:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]".replace("-", "−")


def records_table(results: Results) -> pd.DataFrame:
    """A row a run: its key, setting, objective, schedule, seed and every metric."""
    return pd.DataFrame(
        {
            "key": record.key,
            "data": record.run["data"]["name"],
            "train": record.run["data"]["train"],
            **record.run["objective"],
            "learning_rate": record.run["schedule"]["learning_rate"],
            "weight_decay": record.run["schedule"]["weight_decay"],
            "seed": record.run["seed"],
            **record.metrics,
            "diverged_at": record.diverged_at,
        }
        for arm in results.arms
        for record in results.records(arm)
    )
