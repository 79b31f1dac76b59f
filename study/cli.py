"""`lsr`: the study's command line."""

import ast
import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from lsr_core import __version__
from lsr_core.errors import InputError, require, require_positive
from lsr_core.store import Record, Store

from . import experiments


class _Group(click.Group):
    """Commands whose mistakes end in one sentence and exit code 2."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except InputError as error:
            click.echo(f"lsr: {error}", err=True)
            sys.exit(2)
        except OSError as error:
            if error.filename is None:
                raise  # not a path that the user gave
            click.echo(f"lsr: {error.filename} cannot be used ({error.strerror})", err=True)
            sys.exit(2)
        except KeyboardInterrupt:
            click.echo(
                "lsr: interrupted; finished runs are kept, and the same command trains what is missing", err=True
            )
            sys.exit(130)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Label smoothing and knowledge distillation: run the study's notebooks and look at its records."""


def _to_write(context: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:  # noqa: ARG001
    """Refuse, before any work is done, a file that cannot be written at its end."""
    if path is not None:
        place = path if path.exists() else path.absolute().parent
        fits = os.access(place, os.W_OK) and (path.exists() or place.is_dir())
        require(fits, f"{path} cannot be written; name a file in a folder that is there and yours")
    return path


_FILE = click.Path(dir_okay=False, path_type=Path)


@main.group()
def notebooks() -> None:
    """The study's notebooks."""


@notebooks.command("list")
def list_notebooks() -> None:
    """Names and parameters of the notebooks."""
    from . import notebooks as runner

    for name in runner.names():
        shown = ", ".join(f"{parameter} = {default}" for parameter, default in runner.parameters(name).items())
        click.echo(f"{name}: {shown or 'no parameters'}")


@notebooks.command("run")
@click.argument("names", nargs=-1)
@click.option("-p", "--parameter", "given", type=(str, str), multiple=True, help="A parameter and its value.")
@click.option(
    "--out", type=Path, default=Path("executed"), show_default=True, help="Folder for the executed notebooks."
)
@click.option("--status", type=_FILE, callback=_to_write, help="Write a page with times and versions here.")
@click.option("--time-limit", type=float, default=1800, show_default=True, help="Seconds a notebook.")
@click.option("--changed", is_flag=True, help="Leave alone what would come out as it lies in the folder.")
def run_notebooks(
    names: tuple[str, ...],
    given: tuple[tuple[str, str], ...],
    out: Path,
    status: Path | None,
    time_limit: float,
    changed: bool,
) -> None:
    """Execute notebooks (all, where none is named), two at a time, each in its own process."""
    from . import _pages
    from . import notebooks as runner

    require_positive("time-limit", time_limit)
    values = {name: _literal(name, value) for name, value in given}
    if "preset" in values:
        experiments.preset(values["preset"])
    if not names and not given:
        click.echo(_pages.forecast(runner.AT_A_TIME))
    outcomes = runner.run(names, values, out.absolute(), time_limit, only_changed=changed)
    if status:
        status.write_text(runner.status_page(outcomes))
    for outcome in outcomes:
        if outcome.report:
            click.echo(f"\n{outcome.name}: {outcome.report}", err=True)
    width = max(len(outcome.name) for outcome in outcomes)
    for outcome in outcomes:
        click.echo(f"{outcome.name:{width}}  {outcome.seconds:7.1f} s  {outcome.result}")
    results = {outcome.result for outcome in outcomes} - {"done"}
    sys.exit(0 if not results else 2 if results == {"refused"} else 1)


@main.group()
def runs() -> None:
    """The records of finished runs."""


@runs.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def list_runs(as_json: bool) -> None:
    """All records, one a line."""
    store = Store()
    found = 0
    for record in store:
        found += 1
        if as_json:
            click.echo(json.dumps({"key": record.key, **_summary(record)}))
        else:
            summary = _summary(record)
            constants = _numbers(record.run["objective"])
            known = summary["accuracy"] is not None and summary["diverged_at"] is None
            lacking = "no value" if summary["diverged_at"] is None else "diverged"
            accuracy = f"{100 * summary['accuracy']:.2f} %" if known else lacking
            click.echo(
                f"{record.key}  {summary['data']:13} n={summary['train']:<4} seed={summary['seed']:<4} "
                f"{accuracy:>9}  {summary['method']} {constants}"
            )
    if not as_json:
        click.echo(f"{found} records in {store.folder}")


@runs.command("show")
@click.argument("prefix")
@click.option("--json", "as_json", is_flag=True, help="The record as it is stored.")
def show_run(prefix: str, as_json: bool) -> None:
    """One record, by its key or the beginning of it."""
    store = Store()
    keys = store.matching(prefix)
    if len(keys) > 1:
        raise InputError(f"{len(keys)} records' keys begin with {prefix!r}; give more of the key")
    record = store.get(keys[0])
    content = {"key": record.key, **vars(record)}
    if as_json:
        click.echo(json.dumps(content))
        return
    for part, value in content.items():
        if not isinstance(value, dict):
            click.echo(f"{part}: {value}")
            continue
        click.echo(f"{part}:")
        for name, entry in value.items():
            click.echo(f"  {name}: {entry}")


@runs.command("rm")
@click.argument("keys", nargs=-1, required=True)
def remove_runs(keys: tuple[str, ...]) -> None:
    """Remove records by their keys; nothing is removed where one of them does not exist."""
    store = Store()
    for key in keys:
        if key not in store:
            raise InputError(f"there is no record {key!r} in {store.folder}; `lsr runs list` shows the keys")
    for key in keys:
        store.remove(key)
    click.echo(f"removed {len(keys)} of the records in {store.folder}")


@main.group()
def results() -> None:
    """The published records of the presets that pages do not run."""


@results.command("grid")
@click.argument("preset")
@click.argument("file", type=_FILE, callback=_to_write)
def write_grid(preset: str, file: Path) -> None:
    """Write a preset's runs to a grid file, for `python -m lsr_core.sweep`."""
    from lsr_core import sweep

    runs = experiments.study(preset).grid()
    sweep.write_grid(runs, file)
    click.echo(f"{file}: {len(runs)} runs, which `python -m lsr_core.sweep {file} --budget-seconds N` makes")


@results.command("publish")
@click.argument("preset")
def publish_results(preset: str) -> None:
    """Write what the store has of a preset's runs to the project's results, with the verdicts that follow."""
    from . import claims as judging
    from . import published

    for chapter, count in published.publish(preset, Store()).items():
        click.echo(f"{preset}/{chapter}.jsonl: {count} runs")
    if preset in judging.PUBLISHED:
        click.echo(f"{preset}: {judging.write_verdicts(preset)} verdicts")


@results.command("verify")
@click.argument("presets", nargs=-1)
def verify_results(presets: tuple[str, ...]) -> None:
    """Recompute every key, place and verdict of presets (all, where none is named) from the published records."""
    from . import claims as judging
    from . import published

    for preset in presets or [folder.name for folder in sorted(published.FOLDER.glob("*/"))]:
        runs = published.verify(preset)
        verdicts = judging.verify_verdicts(preset) if preset in judging.PUBLISHED else 0
        click.echo(f"{preset}: {runs} runs and {verdicts} verdicts are what they say")


@results.command("recompute")
@click.argument("preset", default="desktop")
@click.option("--sample", type=click.IntRange(min=1), default=3, show_default=True, help="How many runs.")
@click.option("--seed", type=click.IntRange(min=0), help="Choose the same runs again.")
def recompute_results(preset: str, sample: int, seed: int | None) -> None:
    """Train a random few of the published runs again: to the same bits on the same kind of machine and threads.

    Elsewhere every metric must come within three standard deviations of its cell's seeds.
    """
    import numpy as np

    from . import published

    failed = 0
    for again in published.recompute(preset, sample, np.random.default_rng(seed)):
        how = "identical" if again.identical else f"farthest metric {again.farthest:.2f} seed deviations away"
        machine = "" if again.same_machine else ", made on another kind of machine"
        click.echo(f"{again.key}  {again.where}: {how}{machine}")
        failed += not again.holds
    if failed:
        raise InputError(f"{failed} of {sample} runs did not come out as published")


@main.group()
def data() -> None:
    """Data sets that are kept in files."""


@data.command("list")
def list_data() -> None:
    """Names, sizes and files; what is missing is downloaded when it is first needed."""
    for name, source in _filed().items():
        inputs = "×".join(map(str, getattr(source, "image_shape", (source.features,))))
        there = source.path if source.path.exists() else "missing"
        click.echo(f"{name:13} {source.max_train:6} to train on, {inputs:7} {source.classes:3} classes  {there}")
    click.echo(f"Files lie in {source.path.parent}; your own images: any .npz file with uint8 train_images and")
    click.echo("test_images [N, H, W, C], int64 train_labels and test_labels [N], and text class_names [K]")


@data.command("fetch")
@click.argument("names", nargs=-1, required=True)
def fetch_data(names: tuple[str, ...]) -> None:
    """Download and convert data sets that are missing."""
    for source in _filed_of(names):
        source.fetch()
        source.check()
        click.echo(f"{source.name}: {source.path}")


@data.command("check")
@click.argument("names", nargs=-1, required=True)
def check_data(names: tuple[str, ...]) -> None:
    """Read the files of data sets, and compare them with what the study was made with."""
    for source in _filed_of(names):
        source.check()
        click.echo(f"{source.name}: {source.path} has fingerprint {source.fingerprint}")


@main.command()
@click.option("--preset", default="quick", show_default=True)
@click.option("--paper", help="One paper's family only.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def claims(preset: str, paper: str | None, as_json: bool) -> None:
    """Judge every claim with the preset's seeds; runs that are missing are trained first."""
    from . import claims as judging

    papers = list(dict.fromkeys(claim.paper for claim in (*judging.CLAIMS, *judging.IDENTITIES)))
    if paper is not None and paper not in papers:
        raise InputError(f"unknown paper {paper!r}; there are {', '.join(papers)}")
    seeds = range(experiments.preset(preset).seeds)
    judgements = [*judging.judge_identities(), *judging.judge(seeds, preset, paper)]
    for judgement in judgements:
        if paper in (None, judgement.claim.paper):
            row = judging.summary(judgement)
            if as_json:
                click.echo(json.dumps(row))
            else:
                click.echo(f"{row['id']:8} {row['verdict']:34} {row['effect']:34} p {row['p']:8} {row['claim']}")


@main.command()
@click.option("--shape", default="3,32,32", show_default=True, help="Channels, height and width of the images.")
@click.option("--classes", type=click.IntRange(max=10**6), default=100, show_default=True, help="How many there are.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def models(shape: str, classes: int, as_json: bool) -> None:
    """Networks for images: parameters, and multiply-adds of one image's forward pass."""
    from lsr_core import models as networks

    sizes_given = tuple(int(size) if size.strip().isdecimal() else size for size in shape.split(","))
    for name in networks.ARCHITECTURES:
        network = networks.ImageNetwork(name)
        cost = networks.cost(network, sizes_given, classes)
        sizes = {size: getattr(network, size) for size in ("width", "depth")}
        if as_json:
            click.echo(json.dumps({"architecture": name, **sizes, **vars(cost)}))
        else:
            counts = f"{cost.parameters:12,} parameters {cost.multiply_adds:14,} multiply-adds"
            click.echo(f"{name:12} {counts}  {_numbers(sizes)}".rstrip())


@main.command()
@click.argument("method")
@click.option("--preset", default="quick", show_default=True)
@click.option("--write", is_flag=True, help="Replace the published trials by these.")
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Processes to use.")
def tune(method: str, preset: str, write: bool, workers: int) -> None:
    """Redo a method's 12 validation trials in every setting and mark the chosen one."""
    settings = experiments.settings_of(method, preset)
    if not settings:
        raise InputError(f"method {method!r} is not tuned at preset {preset!r}")
    for setting in settings:
        rows = experiments.tune(method, setting, workers=workers)
        chosen = experiments.best_trial(rows)
        click.echo(str(setting))
        for row in rows:
            constants = _numbers({k: v for k, v in row.items() if k not in _NOT_CONSTANTS})
            figures = f"validation {100 * row['validation_accuracy']:.2f} %, NLL {row['validation_nll']:.3f}"
            click.echo(f"{'*' if row is chosen else ' '} {figures}  {constants}")
        if write:
            experiments.write_tuned_rows(rows, preset)


def _filed() -> dict[str, Any]:
    """The named data sets that are kept in files."""
    from lsr_core.data import DATASETS

    return {name: source for name, source in DATASETS.items() if hasattr(source, "path") and "/" not in name}


def _filed_of(names: tuple[str, ...]) -> list[Any]:
    from lsr_core.data import dataset

    for name in names:
        if name not in _filed() and not name.endswith(".npz"):
            raise InputError(
                f"{name!r} is not kept in a file; there are {', '.join(_filed())}, and .npz files of your own"
            )
    return [dataset(name) for name in names]


_NOT_CONSTANTS = {
    "data", "train", "method", "seeds", "diverged", "validation_accuracy", "validation_nll", "train_accuracy",
}  # fmt: skip


def _numbers(constants: dict[str, Any]) -> str:
    """Constants in one line, without tables."""
    return " ".join(f"{name}={value:g}" for name, value in constants.items() if isinstance(value, (int, float)))


def _summary(record: Record) -> dict[str, Any]:
    run = record.run
    return {
        "data": run["data"]["name"],
        "train": run["data"]["train"],
        "method": run["objective"]["method"],
        "objective": run["objective"],
        "schedule": run["schedule"],
        "seed": run["seed"],
        "accuracy": record.metrics["accuracy"],
        "diverged_at": record.diverged_at,
        "seconds": record.seconds,
    }


def _literal(name: str, text: str) -> Any:
    """A number, list or truth value where the text is one in Python's or YAML's writing, else the text.

    Raises `InputError` for what Python can write and a notebook's parameter cannot be.
    """
    try:
        value = ast.literal_eval({"true": "True", "false": "False", "null": "None"}.get(text, text))
    except (ValueError, SyntaxError):
        return text
    except (TypeError, MemoryError, RecursionError):  # a list as a key; brackets in thousands of brackets
        value = ...
    shown = text if len(text) <= 40 else text[:40] + " ..."
    require(_is_plain(value), f"{name} is {shown}; give a number, a text, true or false, or a list of these")
    return value


def _is_plain(value: Any) -> bool:
    several = isinstance(value, (list, tuple))
    return all(map(_is_plain, value)) if several else value is None or isinstance(value, (bool, int, float, str))
