"""The claims of `claims.toml` and of the plans: comparisons of arms on one metric, and their values in the records."""

import re
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from lsr_core import statistics
from lsr_core.errors import InputError, require
from lsr_core.run import Run
from lsr_core.statistics import Kind, Paired

from .arms import arm_of
from .identities import IDENTITIES
from .plans import Plan, arms_of, plan, planned
from .results import MEASURES, Results
from .settings import CIFAR, Setting
from .studies import DESKTOP, arms_by_setting

Term = tuple[float, Run]
Estimator = Callable[[Results, Sequence[Run]], np.ndarray | Paired]

OWN = "this study"
_RECONSTRUCTED = "Wang 2020, 2021"  # the methods are known from abstracts


@dataclass(frozen=True)
class Claim:
    """A weighted sum of arms' values on a metric, seed by seed, is positive (or near zero); `chapter` is its notebook.

    Most claims have two `terms`, a method and its control; an interaction has four. An `estimator` makes the values,
    one a seed, from the arms' records where a sum does not; an association is summed up by its own. `margin` is δ. A
    claim is `exploratory` where it was written after its runs, `own` where no paper makes it; where its `premise`,
    another claim, does not hold, it is not tested.
    """

    id: str
    paper: str
    text: str
    chapter: str
    terms: tuple[Term, ...]
    margin: float
    metric: str = "accuracy"
    kind: Kind = "better"
    estimator: Estimator | None = None
    exploratory: bool = False
    own: bool = False
    premise: str | None = None

    @property
    def base(self) -> str:
        """The identifier without its setting."""
        return self.id.partition("-")[0]

    @property
    def flags(self) -> list[str]:
        """What every board says beside the claim."""
        flags = {"reconstructed": self.paper == _RECONSTRUCTED, "own": self.own, "exploratory": self.exploratory}
        return [flag for flag, holds in flags.items() if holds]

    @property
    def arms(self) -> list[Run]:
        """The arms that are compared."""
        return [arm for _, arm in self.terms]

    @property
    def setting(self) -> Setting:
        """Where the method is tried."""
        return Setting(self.arms[0].data, self.arms[0].train)

    @property
    def place(self) -> str:
        """Where the method is tried, in short: data set and training images, or that it is in several settings."""
        places = {f"{arm.data} {arm.train}" for arm in self.arms}
        return places.pop() if len(places) == 1 else f"{len(places)} settings"

    def values(self, results: Results) -> np.ndarray | Paired:
        """One value a seed in the metric's unit, positive where the claim says so; an association summed up."""
        if self.estimator is not None:
            return self.estimator(results, self.arms)
        measure = MEASURES[self.metric]
        sign = 1 if measure.higher_is_better else -1
        return sign * measure.scale * self.sum(results, self.terms)

    def says_as(self, other: "Claim") -> bool:
        """Whether another claim makes the same comparison."""
        said = [(claim.terms, claim.metric, claim.kind, claim.estimator) for claim in (self, other)]
        return said[0] == said[1]

    def is_measured(self, results: Results) -> bool:
        """Whether at least two seeds have the metric."""
        values = self.values(results)
        return isinstance(values, Paired) or bool(np.isfinite(values).sum() >= 2)

    def side(self, sign: int) -> list[Term]:
        """The arms of the method (`sign` 1) or of its control (−1), with their weights in its sum."""
        return [(abs(weight), arm) for weight, arm in self.terms if weight * sign > 0]

    def sum(self, results: Results, terms: Iterable[Term]) -> np.ndarray:
        """A weighted sum of the claim's arms in its metric, one value a seed, as it was measured."""
        seeds = results.seeds(*self.arms)
        return np.sum([weight * results.values(arm, self.metric, seeds) for weight, arm in terms], 0)


def farthest_stage(results: Results, compared: Sequence[Run]) -> Paired:
    """The student, one a teacher's stage, whose accuracy may lie farthest from the mean of all, in points.

    Of the 90 % intervals it has the farthest end: where that is within δ, all are. Its p is Bonferroni's over stages.
    """
    seeds = results.seeds(*compared)
    students = np.array([100 * results.values(arm, "accuracy", seeds) for arm in compared])
    stages = [statistics.paired(row) for row in students - students.mean(0)]
    farthest = max(stages, key=lambda stage: max(map(abs, stage.interval90)))
    return replace(farthest, p=min(1.0, len(stages) * farthest.p))


def gain_with_diversity(results: Results, compared: Sequence[Run]) -> Paired:
    """Across seeds, a student's gain over its teacher with the teacher's diversity, given its uncertainty.

    Given the teacher's accuracy too: the gain is over the teacher, so that a lucky teacher has little to give.
    """
    student, teacher = compared
    seeds = results.seeds(student, teacher)
    gain = results.differences(student, teacher, "accuracy")
    rows = [gain, *(results.values(teacher, metric, seeds) for metric in ("diversity", "uncertainty", "accuracy"))]
    gain, diversity, *given = np.array(rows)[:, np.isfinite(rows).all(0)]
    return statistics.association(gain, diversity, given)


def nearer_to_log_2(results: Results, compared: Sequence[Run]) -> np.ndarray:
    """How much nearer to log 2 the method takes the mutual information than its control does."""
    seeds = results.seeds(*compared)
    method, control = (abs(results.values(arm, "information", seeds) - np.log(2)) for arm in compared)
    return control - method


def moved_apart_more(results: Results, compared: Sequence[Run]) -> np.ndarray:
    """How much farther the method moves the centres of similar classes apart than those of other classes."""
    similar, other = (results.differences(*compared, metric) for metric in ("similar_distance", "other_distance"))
    return similar - other


def best_over_last(results: Results, compared: Sequence[Run]) -> np.ndarray:
    """How much the best of the stated epochs flatters the last one, beyond the margin of 0.1 points; nan if failed."""
    records = results.records(*compared)
    curves = [np.array(record.curves["test_accuracy"], dtype=float) for record in records]
    flattered = [100 * (curve.max() - curve[-1]) - 0.1 for curve in curves]
    return np.where([record.failure is None for record in records], flattered, np.nan)


def _claims(group: dict[str, Any]) -> list[Claim]:
    """The claims of a group: each in each of its settings, or once over all that it is the mean of."""
    tried = [[Setting(*setting)] for setting in group.get("settings", [])]
    once = [[Setting(*setting) for setting in group.get("mean_over", [])]]
    return [_claim(group, entry, settings) for settings in tried or once for entry in group["claims"]]


def _claim(group: dict[str, Any], entry: dict[str, Any], settings: list[Setting], **more: Any) -> Claim:
    name, text = entry["id"], entry["text"]
    if "settings" in group:
        (setting,) = settings
        name += _suffix(setting)
        text = text.format(setting=setting) if "{setting}" in text else f"{text} ({setting})"
    own = group["paper"] == OWN or entry.get("own", False)
    options = {option: entry[option] for option in ("exploratory", "premise") if option in entry}
    judged = _judged_by(entry, {})
    return Claim(
        name, group["paper"], text, group["chapter"], _terms(entry, settings), **judged, **(options | more), own=own
    )


def _judged_by(entry: dict[str, Any], margins: dict[str, float]) -> dict[str, Any]:
    """Metric, kind, estimator and margin of an entry."""
    judged = {option: entry[option] for option in ("metric", "kind") if option in entry}
    metric = entry.get("metric", "accuracy")
    margin = margins.get(metric, MEASURES[metric].margin)
    estimator = globals()[entry["estimator"]] if "estimator" in entry else None
    return judged | {"estimator": estimator, "margin": margin}


def _suffix(setting: Setting) -> str:
    """What tells a claim's settings apart in its identifier."""
    own = str(setting.train) if setting.data == "digits" else setting.data.rpartition("-")[2]
    parts = [setting.study] if own in setting.study else [own, setting.study]
    return "".join(f"-{part}" for part in parts if part)


def _terms(entry: dict[str, Any], settings: list[Setting]) -> tuple[Term, ...]:
    if "terms" in entry:
        return tuple((weight, arm_of(call, Setting(*[*own, *settings][0]))) for weight, call, *own in entry["terms"])
    networks = [{"network": network} for network in entry.get("networks", [])] or [{}]
    cases = list(product(settings, networks))
    return tuple(
        (sign / len(cases), arm_of(entry[side], setting, **network))
        for sign, side in ((1, "method"), (-1, "control"))
        for setting, network in cases
    )


_CONTENT = tomllib.loads(Path(__file__).with_name("claims.toml").read_text(encoding="utf-8"))
_ENTRIES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}  # each claim as it was first written, with its group
for _group in _CONTENT["quick"]:
    for _entry in _group["claims"]:
        _ENTRIES.setdefault(_entry["id"], (_group, _entry))
_TEXTS = {name: entry | {"chapter": group["chapter"]} for name, (group, entry) in _ENTRIES.items()} | _CONTENT[
    "planned"
]
UNTESTED: list[dict[str, str]] = _CONTENT["untested"]  # claims that no preset can judge, and why


def _elsewhere(arms: Iterable[Run], setting: Setting, planned: Iterable[str]) -> list[Claim]:
    """The live preset's claims whose arms a study has in this setting; exploratory where they were not planned."""
    known, found = set(arms), []
    for name, (group, entry) in _ENTRIES.items():
        with suppress(InputError):  # arms that cannot be there
            claim = _claim(group | {"settings": [setting]}, entry, [setting], exploratory=name not in planned)
            if set(claim.arms) <= known and not any(claim.says_as(other) for other in found):
                found.append(claim)
    return found


def planned_claims(study: str) -> list[Claim]:
    """The claims of a study's plan whose arms are tuned, in each setting where it is tried, or once on their mean."""
    own, found, claims = plan(study), arms_by_setting(study), []
    for paper, family in own.content["families"].items():
        for name, entry in family.items():
            tried = own.settings_of(entry)
            for settings in [tried] if entry.get("mean") else [[setting] for setting in tried]:
                arms = [found[setting] for setting in settings]
                if all(arm in own_arms for own_arms in arms for arm in arms_of(entry)):
                    claims.append(_of_plan(own, paper, name, entry, dict(zip(settings, arms, strict=True))))
    twice = [name for name, count in Counter(claim.id for claim in claims).items() if count > 1]
    require(not twice, f"plan of {study}: two claims are called {', '.join(twice)}")
    return claims


def _of_plan(own: Plan, paper: str, name: str, entry: dict[str, Any], arms: dict[Setting, dict[str, Run]]) -> Claim:
    """A claim of a plan on the mean over settings; its text and chapter are those of `claims.toml` if it has none."""
    known, first = _TEXTS.get(name, {}) | entry, next(iter(arms))
    is_said = {"text", "chapter"} <= known.keys()
    require(is_said, f"plan of {own.study}: claim {name} needs a text and a chapter, as claims.toml has none")
    terms = entry.get("terms") or [[1, entry["method"]], [-1, entry["control"]]]
    where, suffix = (str(first), _suffix(first)) if len(arms) == 1 else (f"{own.study}, the mean", f"-{own.study}")
    return Claim(
        name + suffix,
        paper,
        f"{known['text'].replace(' ({setting})', '')} ({where})",
        known["chapter"],
        tuple((weight / len(arms), by_name[arm]) for by_name in arms.values() for weight, arm in terms),
        **_judged_by(entry, own.content["margins"]),
        own=paper == OWN or known.get("own", False),
    )


def _desktop() -> list[Claim]:
    """The claims of the desktop preset, which was made before studies had plans."""
    arms = [arm for arms in DESKTOP.arms().values() for arm in arms.values()]
    others = [claim for group in _CONTENT["desktop"] for claim in _claims(group)]
    return [*_elsewhere(arms, CIFAR, _CONTENT["planned_at_desktop"]), *others]


CLAIMS: dict[str, tuple[Claim, ...]] = {
    "quick": tuple(claim for group in _CONTENT["quick"] for claim in _claims(group)),
    "desktop": tuple(_desktop()),
    **{study: tuple(planned_claims(study)) for study in planned()},
}


def live_claim(identifier: str) -> Claim:
    """The claim of the live study that has this identifier."""
    known = {claim.id: claim for claim in CLAIMS["quick"]}
    near = ", ".join(get_close_matches(identifier, known, 5)) or "B1-100 and others on the board"
    require(identifier in known, f"unknown claim {identifier!r}; there are {near}")
    return known[identifier]


def without_setting(text: str) -> str:
    """A claim's text without the setting at its end."""
    return re.sub(r" \([^()]*\)$", "", text)


@cache
def meanings() -> dict[str, str]:
    """What each claim and identity says, and who says it, by its identifier with its setting and without."""
    judged = [*IDENTITIES, *(claim for claims in CLAIMS.values() for claim in claims)]
    said = [(each.id, each.text, each.paper) for each in judged]
    said += [(entry["id"], entry["text"], entry["paper"]) for entry in UNTESTED]
    found: dict[str, str] = {}
    for name, text, paper in said:
        base, _, setting = name.partition("-")
        found.setdefault(base, f"{without_setting(text) if setting else text} ({paper})")
        found.setdefault(name, f"{text} ({paper})")
    return found


def explained(identifier: str) -> Markup:
    """An identifier that says what it claims on hovering, and where it has the keyboard's focus."""
    word = Markup('<abbr class="claim-id" tabindex="0" title="{}">{}</abbr>')
    return word.format(meanings()[identifier], identifier)


def judged(compared: Iterable[Run]) -> list[Run]:
    """Those of some arms on which a claim of any chapter rests."""
    known = {arm for claim in CLAIMS["quick"] for arm in claim.arms}
    return [arm for arm in compared if arm in known]
