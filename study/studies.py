"""The studies: the seeds and arms of each, and whether pages run it or read its published records."""

import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import torch

from lsr_core.augmentation import Augmentation
from lsr_core.data import dataset
from lsr_core.errors import require
from lsr_core.execute import execute
from lsr_core.objectives import objective
from lsr_core.run import Run
from lsr_core.schedule import Schedule
from lsr_core.store import Store
from lsr_core.sweep import by_seed

from . import search
from .arms import arm_of, tuned
from .paper import grid
from .plans import network, plan, planned
from .settings import AUDIO, CIFAR, TUNING_SEEDS, Setting
from .tuning import NotTuned, in_two_steps, protocol, trials, write_tuned_rows

Chapters = dict[str, dict[str, Run]]  # arms by name, under the first chapter that shows them

AUDIO_METHODS = {"cross-entropy": "CE", "lsr": "LSR", "lsrkd": "LSR-OS", "lsrkd-tc": "LSR-OS-TC", "mrkd": "MrKD"}
_CONTENT = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Study:
    """Arms and the seeds that pair them: their number belongs to a study and is never raised after looking.

    The runs of a `live` study are made where a page needs them. Those of another are published records, which stand
    under the chapters of `arms`; `order` is the order in which to make them, arm by arm where none is given.
    """

    name: str
    seeds: Sequence[int]
    arms: Callable[[], Chapters] = dict
    order: Callable[[], list[Run]] | None = None
    live: bool = False

    def runs(self) -> list[Run]:
        """Every run once, in the order to make them."""
        if self.order is not None:
            return self.order()
        return [run for arms in self.arms().values() for arm in arms.values() for run in arm.runs(self.seeds)]


@cache
def _desktop_arms() -> Chapters:
    """Images: 50 of each class of CIFAR-100, tuned by validation. Audio: GTZAN's features, tuned fold by fold."""
    chapters = _CONTENT["desktop"].items()
    arms = {chapter: {name: arm_of(call, CIFAR) for name, call in calls.items()} for chapter, calls in chapters}
    arms["lsrkd"] |= {f"{fold.data} {method}": tuned(fold, method) for fold in AUDIO for method in AUDIO_METHODS}
    return arms


def _desktop_order() -> list[Run]:
    """Audio, then the arms on images."""
    arms = _by_name(_desktop_arms())
    return _tier_by_tier(arms, [[name for name in arms if name.startswith("gtzan")], *_CONTENT["tiers"]], DESKTOP.seeds)


def _by_name(chapters: Chapters) -> dict[str, Run]:
    return {name: arm for arms in chapters.values() for name, arm in arms.items()}


def _tier_by_tier(arms: dict[str, Run], tiers: Sequence[Sequence[str]], seeds: Sequence[int]) -> list[Run]:
    """The runs of tiers of arms, each seed by seed, teachers included.

    Whenever it stops, what is there are complete pairs.
    """
    runs: dict[Run, None] = {}
    for tier in tiers:
        for run in (arms[name].at(seed) for seed in seeds for name in tier if name in arms):
            runs |= dict.fromkeys([*(trained.run for trained in run.needs), run])
    return list(runs)


def arms_by_setting(name: str) -> dict[Setting, dict[str, Run]]:
    """The arms of a study's plan that are tuned, by name, in each of its settings."""
    own, found = plan(name), {}
    for setting in own.settings:
        found[setting] = {}
        for arm, call in own.calls(setting).items():
            with suppress(NotTuned):
                found[setting][arm] = arm_of(call, setting)
    return found


def planned_arms(name: str) -> Chapters:
    """The arms of a study's plan that are tuned; of several settings, an arm's name begins with its own."""
    own, by_setting = plan(name), arms_by_setting(name)
    return {
        chapter: {
            own.name_in(setting, arm): found[arm]
            for setting, found in by_setting.items()
            for arm in arms
            if arm in found
        }
        for chapter, arms in own.arms.items()
    }


def planned_study(name: str) -> Study:
    """A study by its plan."""
    own = plan(name)
    return Study(name, own.seeds, lambda: planned_arms(name), lambda: _planned_order(name))


def _planned_order(name: str) -> list[Run]:
    own, runs = plan(name), dict[Run, None]()
    tiers = [[own.name_in(setting, arm) for arm in arms] for setting, arms in own.steps]
    for seeds in own.stages:
        runs |= dict.fromkeys(_tier_by_tier(_by_name(planned_arms(name)), tiers, seeds))
    return list(runs)


def make(name: str, store: Store, workers: int = 1) -> Iterator[str]:
    """Tune and run what is missing of a planned study, tier by tier in its plan's order; yields what was done."""
    own = plan(name)
    for seeds, (setting, arms) in product(own.stages, own.steps):
        calls = own.calls(setting)
        for arm in arms:
            while method := _untuned(calls[arm], setting):
                write_tuned_rows(search.tune(method, setting, store, workers), name)
                yield f"tuned {own.name_in(setting, method)}"
        execute(_tier_by_tier(arms_by_setting(name)[setting], [arms], seeds), store, workers)
        yield f"made {', '.join(own.name_in(setting, arm) for arm in arms)}"


def groups(name: str, store: Store) -> Iterator[list[Run]]:
    """The runs of a planned study for a sweep, its trials first, which must be made when the next are asked for.

    Raises `InputError` for a study without plan, and for one that is tuned in rounds.
    """
    own = plan(name)
    for setting, arms in own.steps:
        for arm in arms:
            while method := _untuned(own.calls(setting)[arm], setting):
                message = f"preset {name!r} is tuned in rounds; `lsr results make {name}` makes it"
                require(not search.has_rounds(setting), message)
                seeds = protocol(setting).trial_seeds
                yield [trial.at(seed) for seed in seeds for trial in trials(method, setting)]
                write_tuned_rows(search.tune(method, setting, store), name)
    yield from by_seed(_planned_order(name))


def require_device(name: str, has_gpu: bool | None = None) -> None:
    """Raise `InputError` where the device of a planned study is missing, here or on the cluster that is asked about."""
    where = f"torch {torch.__version__} finds none here" if has_gpu is None else "no node of the cluster has one"
    there = torch.cuda.is_available() if has_gpu is None else has_gpu
    is_there = plan(name).content.get("device") != "cuda" or there
    require(is_there, f"preset {name!r} is made on a GPU, and {where}")


def tune_from_records(name: str, store: Store) -> None:
    """Choose a planned study's constants as far as all its trials have records; of one without rounds."""
    if plan(name).trials and not any(map(search.has_rounds, plan(name).settings)):
        for runs in groups(name, store):
            if any(run.key not in store for run in runs):
                return


def arms_by_key(name: str) -> dict[str, str]:
    """The names of a planned study's arms by the keys of their runs, in the order to make them; none before tuning."""
    arms, seeds = _by_name(planned_arms(name)), plan(name).seeds
    named = {run.key: arm for arm, template in arms.items() for run in template.runs(seeds)}
    return {run.key: named[run.key] for run in _planned_order(name) if run.key in named}


def forget_teachers(name: str, store: Store) -> None:
    """Remove the weights of a planned study's teachers that no missing run needs: what travels stays small."""
    runs = _planned_order(name)
    needed = {run.key: {(trained.run.key, trained.epoch) for trained in run.needs} for run in runs}
    wanted = set().union(*(own for key, own in needed.items() if key not in store))
    for key, epoch in set().union(*needed.values()) - wanted:
        store.remove_weights(key, epoch)


def _untuned(call: Mapping[str, Any], setting: Setting) -> str | None:
    """The method that must be tuned in a setting before it has this arm."""
    try:
        arm_of(call, setting)
    except NotTuned as missing:
        if missing.setting == setting:
            return missing.method
        raise
    return None


def _baselines(study: str) -> Chapters:
    """Cross-entropy as a study's entries say, and label smoothing where they have `smoothing`."""
    return {
        chapter: {
            f"{name}, ε = {epsilon:g}" if epsilon else name: _baseline(entry, epsilon)
            for name, entry in entries.items()
            for epsilon in entry.get("smoothing", [0.0])
        }
        for chapter, entries in _CONTENT[study].items()
    }


def _baseline(entry: Mapping[str, Any], epsilon: float) -> Run:
    """From all training images where it does not say how many; in two equal steps where it has a `first` network."""
    run = Run(
        entry["data"],
        entry.get("train", dataset(entry["data"]).max_train),
        objective("lsr", epsilon=epsilon) if epsilon else objective("cross-entropy"),
        Schedule(**entry["schedule"]),
        network=network(entry["network"]),
        augmentation=Augmentation(**entry["augmentation"]) if "augmentation" in entry else None,
    )
    return in_two_steps(run, network(entry["first"]), run.schedule) if "first" in entry else run


QUICK = Study("quick", range(60), live=True)
DESKTOP = Study("desktop", range(10), _desktop_arms, _desktop_order)
PAPER = Study("paper", grid.SEEDS, lambda: {data: grid.paper_arms(data) for data in grid.DATA}, grid.paper_grid)
REFERENCE = Study("reference", range(1), lambda: _baselines("reference"))
PILOT_RUNS = Study("pilot_runs", TUNING_SEEDS[:1], lambda: _baselines("pilot_runs"))
STUDIES = {
    study.name: study for study in (QUICK, DESKTOP, *map(planned_study, planned()), PAPER, REFERENCE, PILOT_RUNS)
}


def published_study(name: str) -> Study:
    """The published study of this name; raises `InputError` for another one."""
    published = [study.name for study in STUDIES.values() if not study.live]
    require(name in published, f"{name!r} is not published; there are {', '.join(published)}")
    return STUDIES[name]


def is_exploratory(seeds: Sequence[int]) -> bool:
    """Whether these seeds are others than the live study's own."""
    return tuple(seeds) != tuple(QUICK.seeds)
