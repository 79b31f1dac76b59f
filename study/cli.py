"""`lsr`: the study's command line.

Each command imports what it needs when it is called, so that `lsr --version` and `lsr runs list` need not wait for
torch.
"""

import ast
import json
import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from lsr_core import __version__
from lsr_core.errors import InputError, require, require_positive


class _Group(click.Group):
    """Commands whose mistakes end in one sentence and exit code 2."""

    def invoke(self, context: click.Context) -> Any:
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(errors="replace")  # a terminal that has no τ is no reason to stop
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does, with what is temporary
        try:
            return super().invoke(context)
        except InputError as error:
            message, code = str(error), 2
        except OSError as error:
            if error.filename is None:
                raise  # not a path that the user gave
            message, code = f"{error.filename} cannot be used ({error.strerror})", 2
        except KeyboardInterrupt:
            message, code = "interrupted; finished runs are kept, and the same command trains what is missing", 130
        click.echo(f"lsr: {message}", err=True)
        sys.exit(code)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Label smoothing and knowledge distillation: run the study's notebooks and look at its records."""


notebooks = main.group("notebooks", help="The study's notebooks.")(lambda: None)
runs = main.group("runs", help="The records of finished runs.")(lambda: None)
results = main.group("results", help="The published records of the presets that pages do not run.")(lambda: None)
data = main.group("data", help="Data sets that are kept in files.")(lambda: None)


def _to_write(context: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:  # noqa: ARG001
    """Refuse, before any work is done, a file that cannot be written at its end."""
    if path is not None:
        place = path if path.exists() else path.absolute().parent
        fits = os.access(place, os.W_OK) and (path.exists() or place.is_dir())
        require(fits, f"{path} cannot be written; name a file in a folder that is there and yours")
    return path


_FILE = click.Path(dir_okay=False, path_type=Path)
_AS_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")


@notebooks.command("list")
def list_notebooks() -> None:
    """Names and parameters of the notebooks."""
    from . import build

    for name in build.names():
        shown = ", ".join(f"{parameter} = {default}" for parameter, default in build.parameters(name).items())
        click.echo(f"{name}: {shown or 'no parameters'}")


@notebooks.command("run")
@click.argument("names", nargs=-1)
@click.option("-p", "--parameter", "given", type=(str, str), multiple=True, help="A parameter and its value.")
@click.option("--out", type=Path, default="executed", show_default=True, help="Folder for the executed notebooks.")
@click.option("--status", type=_FILE, callback=_to_write, help="Write a page with times and versions here.")
@click.option("--time-limit", type=float, default=1800, show_default=True, help="Seconds a notebook.")
def run_notebooks(
    names: tuple[str, ...], given: tuple[tuple[str, str], ...], out: Path, status: Path | None, time_limit: float
) -> None:
    """Execute notebooks (all, where none is named), one after the other."""
    from . import build

    require_positive("time-limit", time_limit)
    values = {name: literal(name, value) for name, value in given}
    if not names and not given:
        click.echo(build.forecast())
    outcomes = build.run(names, values, out.absolute(), time_limit)
    for outcome in (outcome for outcome in outcomes if outcome.report):
        click.echo(f"\n{outcome.name}: {outcome.report}", err=True)
    click.echo("\n".join(map(str, outcomes)))
    if status:
        status.write_text(build.status_page([outcome.name for outcome in outcomes], out), encoding="utf-8")
    sys.exit(build.exit_code(outcomes))


@runs.command("list")
@_AS_JSON
def list_runs(as_json: bool) -> None:
    """All records, one a line."""
    from .listing import folder, summaries

    rows = summaries()
    click.echo("\n".join(json.dumps(row) if as_json else _line(row) for row in rows), nl=bool(rows))
    if not as_json:
        click.echo(f"{len(rows)} records in {folder()}")
    damaged = [row["key"] for row in rows if "damaged" in row]
    require(not damaged, f"{len(damaged)} damaged records; `lsr runs rm {' '.join(damaged[:3])}` removes such")


@runs.command("show")
@click.argument("prefix")
@click.option("--json", "as_json", is_flag=True, help="The record as it is stored.")
def show_run(prefix: str, as_json: bool) -> None:
    """One record, by its key or the beginning of it."""
    from lsr_core.store import Store

    store = Store()
    keys = store.matching(prefix)
    require(len(keys) == 1, f"{len(keys)} records' keys begin with {prefix!r}; give more of the key")
    record = store.get(keys[0])
    content = {"key": record.key, **vars(record)}
    if as_json:
        click.echo(json.dumps(content))
        return
    for part, value in content.items():
        entries = [f"  {name}: {entry}" for name, entry in value.items()] if isinstance(value, dict) else []
        click.echo("\n".join([f"{part}:", *entries]) if isinstance(value, dict) else f"{part}: {value}")


@runs.command("rm")
@click.argument("keys", nargs=-1, required=True)
def remove_runs(keys: tuple[str, ...]) -> None:
    """Remove records by their keys; nothing is removed where one of them does not exist."""
    from lsr_core.store import Store

    store = Store()
    for key in keys:
        require(key in store, f"there is no record {key!r} in {store.place}; `lsr runs list` shows the keys")
    for key in set(keys):
        store.remove(key)
    click.echo(f"removed {len(set(keys))} of the records in {store.place}")


@results.command("grid")
@click.argument("preset")
@click.argument("file", type=_FILE, callback=_to_write)
def write_grid(preset: str, file: Path) -> None:
    """Write a preset's runs to a grid file, for `python -m lsr_core.sweep`."""
    from lsr_core import sweep

    from . import studies

    grid = studies.published_study(preset).runs()
    require(
        bool(grid),
        f"{preset} has no runs before it is tuned; `lsr results make {preset}` or a sweep of it tunes it first",
    )
    sweep.write_grid(grid, file)
    click.echo(f"{file}: {len(grid)} runs, which `python -m lsr_core.sweep {file} --budget-seconds N` makes")


@results.command("make")
@click.argument("preset")
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Processes to use.")
@click.option("--ray", "address", is_flag=False, flag_value="", help="A Ray cluster instead: HOST:PORT, auto, or none.")
def make_results(preset: str, workers: int, address: str | None) -> None:
    """Tune and run what the store lacks of a planned study, in the plan's order; stopped, it goes on from there.

    With --ray, every stack of runs is a task of the cluster at the address; without one, Ray starts on this machine.
    """
    if address is not None:
        from lsr_core.connection import Cluster

        Cluster(address or None)  # before torch is imported: the workers import it meanwhile
    from lsr_core.cluster import Ray
    from lsr_core.store import Store

    from . import published_records, studies

    published_records.lines(preset)  # raises it where they stand under another plan
    backend = workers if address is None else Ray(address or None)
    studies.require_device(preset, None if address is None else backend.cluster.has_gpu)
    for done in studies.make(preset, Store(), backend):
        click.echo(done)


@results.command("publish")
@click.argument("preset")
def publish_results(preset: str) -> None:
    """Write what the store has of a preset's runs to the project's results, and count the verdicts that follow."""
    from lsr_core.store import Store

    from . import published_records

    for chapter, count in published_records.publish(preset, Store()).items():
        click.echo(f"{preset}/{chapter}.jsonl: {count} runs")
    click.echo(f"{preset}: {_verdicts(preset)} verdicts")


@results.command("import")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def import_results(folder: Path) -> None:
    """Keep the records that another machine's sweep left in a folder, and publish the lines of their studies."""
    from lsr_core.store import Store

    from . import published_records

    for file, count in published_records.take_over(folder, Store()).items():
        click.echo(f"{file}.jsonl: {count} runs")


@results.command("verify")
@click.argument("presets", nargs=-1)
def verify_results(presets: tuple[str, ...]) -> None:
    """Recompute every key and place of presets (all, where none is named), and judge every claim from their lines."""
    from . import published_records

    names = presets or published_records.presets()
    require(bool(names), f"there are no records in {published_records.FOLDER}; the project's own come with a clone")
    for preset in names:
        count, planned = published_records.verify(preset), len(published_records.planned_keys(preset))
        waiting = f", {planned - count} are not made" * (count < planned)
        click.echo(f"{preset}: {count} runs are what they say{waiting}; {_verdicts(preset)} verdicts follow")


@results.command("recompute")
@click.argument("preset", default="desktop")
@click.option("--sample", type=click.IntRange(min=1), default=3, show_default=True, help="How many runs.")
@click.option("--seed", type=click.IntRange(min=0), help="Choose the same runs again.")
def recompute_results(preset: str, sample: int, seed: int | None) -> None:
    """Train a random few of the published runs again: to the same bits on the same kind of machine, one at a time.

    Elsewhere, and of runs that were trained side by side, every metric must come within three standard deviations of
    its arm's seeds.
    """
    import numpy as np

    from . import published_records

    failed = 0
    for run in published_records.recompute(preset, sample, np.random.default_rng(seed)):
        difference = "identical" if run.identical else f"farthest metric {run.max_deviation:.2f} seed deviations away"
        machine = "" if run.alike else ", made on another kind of machine or beside other runs"
        click.echo(f"{run.key}  {run.where}: {difference}{machine}")
        failed += not run.holds
    others = len(published_records.lines(preset)) - len(published_records.makeable(preset))
    if others:
        click.echo(f"left out: {others} runs whose data are not here and cannot be downloaded", err=True)
    require(not failed, f"{failed} of {sample} runs did not come out as published")


def _in_files() -> list[str]:
    """Names of the data sets that are kept in files."""
    from lsr_core.data import DATASETS

    from . import paper  # noqa: F401 (it adds its own)

    return [name for name, source in DATASETS.items() if hasattr(source, "path") and "/" not in name]


@data.command("list")
def list_data() -> None:
    """Names, sizes and files; what is missing is downloaded when it is first needed."""
    from lsr_core.data import dataset

    for name in _in_files():
        source = dataset(name)
        inputs = "×".join(map(str, source.image_shape or (source.input_dim,)))
        there = source.path if source.path.exists() else "missing"
        click.echo(f"{name:13} {source.max_train:6} to train on, {inputs:7} {source.classes:3} classes  {there}")
    click.echo(f"Files lie in {source.path.parent}; your own images: any .npz file with uint8 train_images and")
    click.echo("test_images [N, H, W, C], int64 train_labels and test_labels [N], and text class_names [K]")


def _data_sets(context: click.Context, parameter: click.Parameter, names: tuple[str, ...]) -> list[Any]:  # noqa: ARG001
    """The data sets of these names; refuses, before any of them is read, one that is not kept in a file."""
    from lsr_core.data import dataset

    known = _in_files()
    for name in names:
        message = f"{name!r} is not kept in a file; there are {', '.join(known)}, and .npz files of your own"
        require(name in known or name.endswith(".npz"), message)
    return [dataset(name) for name in names]


_DATA_SETS = click.argument("sources", metavar="NAMES...", nargs=-1, required=True, callback=_data_sets)


@data.command("fetch")
@_DATA_SETS
def fetch_data(sources: list[Any]) -> None:
    """Download and convert data sets that are missing."""
    for source in sources:
        source.fetch()
        click.echo(f"{source.name}: {source.path}")


@data.command("check")
@_DATA_SETS
def check_data(sources: list[Any]) -> None:
    """Read the files of data sets, and compare them with what the study was made with."""
    for source in sources:
        source.check()
        click.echo(f"{source.name}: {source.path} has fingerprint {source.fingerprint}")


@main.command("claims")
@click.option("--preset", default="quick", show_default=True)
@click.option("--paper", help="One paper's family only.")
@_AS_JSON
def judge_claims(preset: str, paper: str | None, as_json: bool) -> None:
    """Judge every claim of a study: from its published records, or with its seeds, training what is missing first."""
    from . import judging, studies
    from .claims import CLAIMS

    require(preset in CLAIMS, f"unknown preset {preset!r}; there are {', '.join(CLAIMS)}")
    papers = list(dict.fromkeys(claim.paper for claim in (*CLAIMS[preset], *judging.IDENTITIES)))
    require(paper is None or paper in papers, f"unknown paper {paper!r}; there are {', '.join(papers)}")
    own = studies.STUDIES[preset]
    judged = judging.judge(own.seeds, paper) if own.live else judging.judge_published(preset)
    for judgement in [*(judging.judge_identities() if own.live else []), *judged]:
        if paper in (None, judgement.claim.paper):
            row = judging.summary(judgement)
            p = judging.format_p(row["p"])
            line = f"{row['id']:8} {row['verdict']:34} {row['effect']:34} p {p:8} {row['claim']}"
            click.echo(json.dumps(row) if as_json else line)


@main.command("models")
@click.option("--shape", default="3,32,32", show_default=True, help="Channels, height and width of the images.")
@click.option("--classes", type=click.IntRange(max=10**6), default=100, show_default=True, help="How many there are.")
@_AS_JSON
def list_models(shape: str, classes: int, as_json: bool) -> None:
    """Networks for images: parameters, and multiply-adds of one image's forward pass."""
    from lsr_core import models

    from . import paper  # noqa: F401 (it adds its networks)

    image_shape = tuple(int(size) if size.strip().isdecimal() else size for size in shape.split(","))
    for name in models.ARCHITECTURES:
        network = models.ImageNetwork(name)
        cost = models.cost(network, image_shape, classes)
        sizes = {"width": network.width, "depth": network.depth}
        row = {"architecture": name, **sizes, **cost._asdict()}
        counts = f"{cost.parameters:12,} parameters {cost.multiply_adds:14,} multiply-adds"
        click.echo(json.dumps(row) if as_json else f"{name:12} {counts}  {_numbers(sizes)}".rstrip())


@main.command()
@click.argument("method")
@click.option("--preset", default="quick", show_default=True)
@click.option("--write", is_flag=True, help="Replace the published trials by these.")
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Processes to use.")
def tune(method: str, preset: str, write: bool, workers: int) -> None:
    """Redo a method's validation trials in every setting and mark the chosen one."""
    from . import search, tuning

    for setting in tuning.settings_of(method, preset):
        rows = search.tune(method, setting, workers=workers)
        chosen = tuning.best_trial(rows)
        click.echo(str(setting))
        for row in rows:
            constants = _numbers(_constants(row))
            figures = f"validation {100 * row['validation_accuracy']:.2f} %, NLL {row['validation_nll']:.3f}"
            click.echo(f"{'*' if row is chosen else ' '} {figures}  {constants}")
        published = tuning.rows_of(setting, method)
        if published and _constants(chosen) != _constants(tuning.best_trial(published)):
            click.echo(f"the published choice is another one: {_numbers(_constants(tuning.best_trial(published)))}")
        if write:
            tuning.write_tuned_rows(rows, preset)


_NOT_CONSTANTS = {
    "data", "train", "method", "seeds", "diverged", "failed", "validation_accuracy", "validation_nll", "train_accuracy",
    "study", "accuracies",
}  # fmt: skip


def _constants(row: dict[str, Any]) -> dict[str, Any]:
    """A trial's constants."""
    return {name: value for name, value in row.items() if name not in _NOT_CONSTANTS}


def _verdicts(preset: str) -> int:
    """How many claims a preset's published records decide about."""
    from . import judging
    from .claims import CLAIMS

    return len(judging.judge_published(preset)) if preset in CLAIMS else 0


def _numbers(constants: dict[str, Any]) -> str:
    """Constants in one line, without tables."""
    return " ".join(f"{name}={value:g}" for name, value in constants.items() if isinstance(value, (int, float)))


def _line(row: dict[str, Any]) -> str:
    """A record's row for people."""
    if "damaged" in row:
        return row["damaged"]
    run, accuracy = row["run"], row["accuracy"]
    value = row["failure"] or ("no value" if accuracy is None else f"{100 * accuracy:.2f} %")
    data, network, method = run["data"], " ".join(_texts(run["network"])), " ".join(_texts(run["objective"]))
    schedule = run["schedule"]
    rates = " ".join(f"{schedule[name]:g}" for name in ("learning_rate", "weight_decay", "epochs"))
    place = f"{data['name']:13} n={data['train']:<5} seed={run['seed']:<4} {run['role']:8}"
    return f"{row['key']}  {place} {value:>9}  {network}, {method}, {rates}{_taught_by(run)}, v{run['numerics']}"


def _texts(described: dict[str, Any]) -> Iterable[str]:
    """A description's values without spaces, each after its name where it is a number."""
    for name, value in described.items():
        text = json.dumps(value).replace(" ", "").strip('"')
        yield f"{name}={value:g}" if isinstance(value, (int, float)) else text


def _taught_by(run: dict[str, Any]) -> str:
    """A run's teacher in words, where it has one."""
    teacher = run["teacher"]
    if teacher is None or "run" not in teacher:
        return f", teacher {teacher}" if teacher else ""
    own = teacher["run"]
    network = " ".join(_texts(own["network"]))
    return f", teacher {network} {own['objective']['method']} {own['role']} epoch {teacher['epoch']}"


def literal(name: str, text: str) -> Any:
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


if __name__ == "__main__":
    main()
