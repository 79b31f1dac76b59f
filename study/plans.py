"""Plans: what a published study fixes before its first run, in `results/<study>/plan.toml`."""

import hashlib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lsr_core.errors import InputError, require
from lsr_core.models import Convnet, ImageNetwork, Perceptron, Transformer

from .settings import TUNING_SEEDS, Setting

FOLDER = Path(__file__).parents[1] / "results"

Network = Perceptron | Convnet | ImageNetwork | Transformer
Calls = dict[str, dict[str, Any]]  # of functions of `arms.py`, by the arm that each gives

_PARTS = [
    "seeds", "stages", "device", "setting", "settings", "tiers", "only", "margins", "protocol", "tuning", "arms",
    "families",
]  # fmt: skip


_ENTRIES = (
    "text", "chapter", "method", "control", "terms", "metric", "kind", "estimator", "settings", "mean",
)  # fmt: skip


def network(described: Mapping[str, Any]) -> Network:
    """The network of these sizes: an `architecture` is of images, `heads` of sentences, `hidden` of a perceptron."""
    for size, make in {"architecture": ImageNetwork, "heads": Transformer}.items():
        if size in described:
            return make(**described)
    return Perceptron(tuple(described["hidden"])) if "hidden" in described else Convnet(**described)


@dataclass(frozen=True)
class Plan:
    """A plan's content, and its hash, which every record is published with."""

    study: str
    content: dict[str, Any]
    hash: str

    @property
    def seeds(self) -> range:
        """The seeds that pair the arms."""
        first, last = self.content["seeds"]
        return range(first, last + 1)

    @property
    def stages(self) -> list[range]:
        """The seeds in the order in which all arms have them: all at once, or first those up to a number, and so on."""
        ends = self.content.get("stages", [len(self.seeds)])
        return [self.seeds[start:end] for start, end in zip([0, *ends], ends, strict=False)]

    @property
    def settings(self) -> tuple[Setting, ...]:
        """Where the arms are compared."""
        return tuple(map(self._setting, self.content.get("settings") or [self.content["setting"]]))

    @property
    def tiers(self) -> list[list[str]]:
        """The names of arms in the order in which they are tuned and run."""
        return self.content["tiers"]

    @property
    def arms(self) -> dict[str, Calls]:
        """The arms by name, under the first chapter that shows them, each a call of a function of `arms.py`."""
        return self.content["arms"]

    @property
    def names(self) -> list[str]:
        """The names of all arms."""
        return [name for arms in self.arms.values() for name in arms]

    @property
    def trials(self) -> dict[str, dict[str, Any]]:
        """What is tuned by method, the baseline first: nothing where constants are another study's."""
        return self.content.get("tuning", {}).get("trials", {})

    @property
    def steps(self) -> list[tuple[Setting, list[str]]]:
        """The tiers, each in one setting after the other."""
        steps = [
            (place, [arm for arm in tier if self.has(place, arm)]) for tier in self.tiers for place in self.settings
        ]
        return [(setting, arms) for setting, arms in steps if arms]

    def calls(self, setting: Setting) -> Calls:
        """The arms of one setting by name."""
        return {name: call for arms in self.arms.values() for name, call in arms.items() if self.has(setting, name)}

    def has(self, setting: Setting, name: str) -> bool:
        """Whether an arm is compared, or a method tuned, in a setting: `only` names those of one that lacks some."""
        return name in self.content.get("only", {}).get(setting.place, [name])

    def settings_of(self, claim: Mapping[str, Any]) -> list[Setting]:
        """Where a claim is tried: in the settings that it names, or in every one that has all its arms."""
        named = map(self._setting, claim["settings"]) if "settings" in claim else self.settings
        return [setting for setting in named if all(self.has(setting, arm) for arm in arms_of(claim))]

    def name_in(self, setting: Setting, arm: str) -> str:
        """What an arm is called in the study: with its setting where there are several."""
        return f"{setting.place}: {arm}" if len(self.settings) > 1 else arm

    def check(self) -> None:
        """Raise `InputError` for what stands in no part of a plan, and for what names something that it lacks."""
        for part in self.content:
            require(part in _PARTS, f"plan of {self.study}: unknown part {part!r}; there are {', '.join(_PARTS)}")
        places = [setting.place for setting in self.settings]
        for place, names in self.content.get("only", {}).items():
            self._require(place in places, f"`only` names the setting {place!r}")
            for name in names:
                self._require(name in self.names or name in self.trials, f"{place} names the arm {name!r}")
        for name in (name for tier in self.tiers for name in tier):
            self._require(name in self.names, f"a tier names the arm {name!r}")
        for name in self.names:
            self._require(any(name in tier for tier in self.tiers), f"the arm {name!r} needs a tier")
        tuning, last = self.content.get("tuning", {}).get("seeds", []), TUNING_SEEDS.start
        apart = max(self.seeds) < last <= min(tuning, default=last)
        require(apart, f"plan of {self.study}: seeds for verdicts are below {last}, those for tuning from {last} on")
        whole = [seed for stage in self.stages for seed in stage] == list(self.seeds)
        require(whole, f"plan of {self.study}: stages are {self.content.get('stages')}; they must rise to all seeds")
        for family, claims in self.content.get("families", {}).items():
            self._check_family(family, claims)

    def _check_family(self, family: str, claims: Mapping[str, Any]) -> None:
        start = f"plan of {self.study}: "
        loose = f"claim {family} stands in no family; its table is [families.<paper>.{family}]"
        require(not _compares(claims), start + loose)
        require(bool(claims), f"{start}the family {family!r} is empty; it needs a claim")
        for claim, entry in claims.items():
            fault = f"{start}claim {claim} "
            require(_compares(entry), f"{fault}compares no arms; it needs `terms`, or a `method` and a `control`")
            for key in entry:
                require(key in _ENTRIES, f"{fault}has an unknown entry {key!r}; there are {', '.join(_ENTRIES)}")
            metric = entry.get("metric", "accuracy")
            self._require(metric in self.content["margins"], f"claim {claim} needs a margin of {metric!r}")
            for arm in arms_of(entry):
                self._require(arm in self.names, f"claim {claim} names the arm {arm!r}")
            for setting in map(self._setting, entry.get("settings", [])):
                self._require(setting in self.settings, f"claim {claim} names the setting '{setting.place}'")
            require(bool(self.settings_of(entry)), f"{fault}is tried nowhere, as no setting has all its arms")

    def _require(self, there: bool, named: str) -> None:
        require(there, f"plan of {self.study}: {named}, which it does not have")

    def _setting(self, listed: Sequence[Any]) -> Setting:
        return Setting(*listed, self.study)


def arms_of(claim: Mapping[str, Any]) -> list[str]:
    """The names of the arms that a claim compares."""
    return [arm for _, arm in claim["terms"]] if "terms" in claim else [claim["method"], claim["control"]]


def _compares(entry: Any) -> bool:
    """Whether an entry says what a claim compares."""
    return isinstance(entry, Mapping) and ("terms" in entry or {"method", "control"} <= entry.keys())


def planned() -> list[str]:
    """The studies that have a plan; raises `InputError` where there is no folder of results."""
    require(FOLDER.is_dir(), f"there is no folder {FOLDER}; this needs a clone, installed by `pip install -e`")
    return sorted(path.parent.name for path in FOLDER.glob("*/plan.toml"))


def plan(study: str) -> Plan:
    """The plan of a study; raises `InputError` where it has none, or one that names what it does not have."""
    return read(study, FOLDER)


@cache
def read(study: str, folder: Path) -> Plan:
    """The plan of a study in a folder of results; raises `InputError` where there is none, or a bad one."""
    path = folder / study / "plan.toml"
    require(path.exists(), f"{study!r} has no plan; it must stand in {path.relative_to(folder.parent)}")
    text = path.read_bytes()
    try:
        content = tomllib.loads(text.decode())
    except ValueError as error:
        raise InputError(f"plan of {study} is no TOML: {error}") from None
    found = Plan(study, content, hashlib.sha256(text).hexdigest()[:12])
    found.check()
    return found
