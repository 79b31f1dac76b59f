"""Tables of results."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lsr_core.run import Run

from . import search
from .plans import plan
from .results import MEASURES, Results, chance_levels, effect_of
from .settings import Setting
from .tuning import best_trial, methods_of, rows_of

_DESCRIBED = r"^(?!teacher\.run\.(?:data|schedule|augmentation|numerics)\b)"  # of a teacher, what it is


def table(results: Results, arms: dict[str, Run], control: str, metrics: Sequence[str]) -> pd.DataFrame:
    """A row an arm: n; for each metric its mean and the paired difference to the control with its 95 % interval.

    Training accuracy and failed runs stand in every row.
    """
    rows = []
    for label, arm in arms.items():
        row: dict[str, object] = {"arm": label, "n": len(results.records(arm))}
        for metric in metrics:
            measure = MEASURES[metric]
            mean = measure.scale * results.values(arm, metric).mean()
            row[measure.label] = f"{mean:.{measure.digits}f}".replace("-", "−")
            change = "–" if label == control else results.effect(arm, arms[control], metric).text
            row[f"Δ {measure.change} [95 %]"] = change
        row["training accuracy, %"] = f"{100 * results.values(arm, 'train_accuracy').mean():.1f}"
        row["failed"] = round(results.failed(arm) * len(results.records(arm)))
        rows.append(row)
    return pd.DataFrame(rows).set_index("arm")


def interactions(results: Results, pairs: dict[str, dict[str, tuple[Run, Run]]]) -> pd.DataFrame:
    """Effects of arms over their controls in points of accuracy, and each column's minus the first column's.

    A row and a column a pair; all are means with 95 % intervals over the seeds that a row's arms share.
    """
    rows = {}
    for label, row in pairs.items():
        seeds = results.seeds(*(arm for pair in row.values() for arm in pair))
        effects = {
            name: 100 * np.subtract(*(results.values(arm, "accuracy", seeds) for arm in pair))
            for name, pair in row.items()
        }
        first, *others = row
        against = {f"{name} against {first}": effects[name] - effects[first] for name in others}
        rows[label] = {name: effect_of(values).text for name, values in {**effects, **against}.items()}
    return pd.DataFrame.from_dict(rows, orient="index")


def single_table(results: Results, *, test: bool) -> pd.DataFrame:
    """A row an arm of one run: its settings and its accuracy on training, validation and, if `test`, test images."""
    rows = []
    for arm in results.arms:
        (record,) = results.records(arm)
        rows.append(
            {
                "data": str(Setting(arm.data, arm.train)),
                "network": f"{arm.network.architecture}, width {arm.network.width}",
                "epochs": arm.schedule.epochs,
                "crops, pixels": arm.augmentation.padding,
                "learning rate": f"{arm.schedule.learning_rate:g}",
                "decay": f"{arm.schedule.weight_decay:g}",
                "ε": f"{getattr(arm.objective, 'epsilon', 0):g}",
                "training accuracy, %": f"{100 * record.metrics['train_accuracy']:.1f}",
                "validation accuracy, %": f"{100 * record.metrics['validation_accuracy']:.1f}",
                **({"test accuracy, %": f"{100 * record.metrics['accuracy']:.1f}"} if test else {}),
                "seconds": f"{record.seconds:.0f}",
            }
        )
    found = pd.DataFrame(rows).set_index("data")
    return found if (found["ε"] != "0").any() else found.drop(columns="ε")


def choices_table(study: str) -> pd.DataFrame:
    """A row a method and setting of a study with a plan: its constants, the values tried of each, and its choice.

    The error of the choice is that of the difference to the next best trial, over the tuning seeds.
    """
    rows = []
    for setting in plan(study).settings:
        for method in (method for method in methods_of(setting) if rows_of(setting, method)):
            found, trials = search.places(method, setting), rows_of(setting, method)
            constants = [f"{p.name} {p.value:g} of {', '.join(f'{v:g}' for v in p.tried)} ({p.where})" for p in found]
            rows.append(
                {
                    "method": method,
                    "setting": setting.place,
                    "constants": "; ".join(constants),
                    "on an edge": sum(p.where == "edge" for p in found),
                    "at a bound": sum(p.where == "bound" for p in found),
                    "of": len(found),
                    "validation accuracy, %": f"{100 * best_trial(trials)['validation_accuracy']:.2f}",
                    "error of the choice": f"{search.error_of_choice(trials):.2f}",
                    "trials": len(trials),
                }
            )
    return pd.DataFrame(rows, columns=None if rows else ["method"]).set_index("method")


def records_table(results: Results) -> pd.DataFrame:
    """A row a run: its key, all that describes it, such as `objective.temperature`, why it failed, and every metric.

    A metric has the value that tables and verdicts count, which for a failed run is chance level.
    """
    tables = []
    for arm in results.arms:
        records = results.records(arm)
        described = pd.json_normalize([record.run for record in records]).filter(regex=_DESCRIBED)
        described.insert(0, "key", [record.key for record in records])
        names = dict.fromkeys(name for record in records for name in record.metrics)
        counted = chance_levels(arm.data)
        measured = {
            f"metric.{name}": results.values(arm, name) if name in counted else [r.metrics.get(name) for r in records]
            for name in names
        }
        tables.append(described.assign(failure=[record.failure for record in records], **measured))
    return pd.concat(tables, ignore_index=True)
