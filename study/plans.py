"""Plans: what a published study fixes before its first run, in `results/<study>/plan.toml`."""

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lsr_core.errors import require
from lsr_core.models import Convnet, ImageNetwork, Perceptron

FOLDER = Path(__file__).parents[1] / "results"

Network = Perceptron | Convnet | ImageNetwork


def network(described: Mapping[str, Any]) -> Network:
    """The network of these sizes: an `architecture` is of images, `hidden` layers of a perceptron."""
    if "architecture" in described:
        return ImageNetwork(**described)
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
    def tiers(self) -> list[list[str]]:
        """The names of arms in the order in which they are tuned and run."""
        return self.content["tiers"]

    @property
    def arms(self) -> dict[str, dict[str, Any]]:
        """The arms by name, under the first chapter that shows them, each a call of a function of `arms.py`."""
        return self.content["arms"]

    @property
    def names(self) -> list[str]:
        """The names of all arms."""
        return [name for arms in self.arms.values() for name in arms]

    def check(self) -> None:
        """Raise `InputError` for a tier or a claim that names an arm which the plan does not have."""
        for name in (name for tier in self.tiers for name in tier):
            require(name in self.names, f"plan of {self.study}: a tier names the arm {name!r}, which it does not have")
        for family in self.content["families"].values():
            for claim, entry in family.items():
                arms = [arm for _, arm in entry["terms"]] if "terms" in entry else [entry["method"], entry["control"]]
                for arm in arms:
                    message = f"plan of {self.study}: claim {claim} names the arm {arm!r}, which it does not have"
                    require(arm in self.names, message)


@cache
def plan(study: str, folder: Path = FOLDER) -> Plan:
    """The plan of a study; raises `InputError` where it has none, or one that names arms which it does not have."""
    path = folder / study / "plan.toml"
    require(path.exists(), f"{study!r} has no plan; it must stand in {path.relative_to(folder.parent)}")
    text = path.read_bytes()
    found = Plan(study, tomllib.loads(text.decode()), hashlib.sha256(text).hexdigest()[:12])
    found.check()
    return found
