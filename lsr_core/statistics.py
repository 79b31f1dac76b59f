"""Paired differences, intervals, tests, and the rule that turns them into a verdict.

The rule is fixed in advance. For differences oriented so that positive is what the claim says, with a margin δ:

1. *negligible*: the 90 % interval lies inside (−δ, δ);
2. *reproduced*: Holm p ≤ .05, mean positive, |mean| ≥ δ;
3. *contradicted here*: the same with the other sign;
4. *undecided*: otherwise.

Claims of *comparable* and *comparable or better* results have their own two lines in `verdict`. Failed runs count at
chance level; where they are more than a tenth of an arm, the claim is *undecided (failed runs)*. Differences that are
all equal, but for rounding, decide nothing. Numbers that are not finite are refused.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, stats

from .errors import require, require_fraction, require_positive

ALPHA = 0.05
POWER = 0.8
MOST_FAILED = 0.1  # of an arm's runs
_FLIP_FROM, _FLIP_EXACT_TO, _FLIP_DRAWS = 6, 14, 100_000
_MOST_SEEDS = 2**20
_NEARLY_ONE = 1 - 1e-12
_ROUNDING = 1e-9  # of the size of what is compared; differences of stored values are equal within less

Kind = Literal["better", "comparable", "comparable or better"]
REPRODUCED, CONTRADICTED, NEGLIGIBLE, UNDECIDED = "reproduced", "contradicted here", "negligible", "undecided"
PROVED, CHECKED, REFUTED = "proved", "checked", "refuted"
SUPPORTED = "supported"  # a claim of the study's own, where a paper's is reproduced
FAILED_RUNS = "failed runs"


@dataclass(frozen=True)
class Paired:
    """Summary of paired differences: mean, Student-t intervals, two-sided paired t test.

    `error` is the mean's standard error, infinite where the differences decide nothing; of an association the standard
    error of its Fisher transform.
    """

    n: int
    mean: float
    interval95: tuple[float, float]
    interval90: tuple[float, float]
    p: float
    error: float
    is_association: bool = False

    def detectable(self, alpha: float = ALPHA, margin: float = 0.0) -> float:
        """The mean that this many pairs would have shown with 80 % power, at p ≤ `alpha` and |mean| ≥ `margin`."""
        if self.is_association:
            least = max(self.error * stats.norm.ppf(1 - alpha / 2), np.arctanh(margin))
            return float(np.tanh(least + self.error * stats.norm.ppf(POWER)))
        return self.error * _detectable(self.n, alpha, margin / self.error)


@dataclass(frozen=True)
class Verdict:
    """A verdict's word, and a remark where the rule asks for one."""

    word: str
    remark: str = ""

    def __str__(self) -> str:
        return f"{self.word} ({self.remark})" if self.remark else self.word


def paired(differences: ArrayLike) -> Paired:
    """Summarise differences `[n]` of paired runs, n ≥ 2; if all are equal, the intervals are infinite and p is 1."""
    d = _checked(differences, least=2)
    mean, spread = d.mean(), d.std(ddof=1)
    error = spread / np.sqrt(len(d)) if spread > _ROUNDING * abs(d).max() else np.inf
    return Paired(
        n=len(d),
        mean=float(mean),
        interval95=_interval(mean, error, len(d), 0.95),
        interval90=_interval(mean, error, len(d), 0.90),
        p=float(2 * stats.t.sf(abs(mean) / error, len(d) - 1)),
        error=float(error),
    )


def association(first: ArrayLike, second: ArrayLike, given: Sequence[ArrayLike] = ()) -> Paired:
    """Partial Spearman correlation of two quantities `[n]` given k others, summarised as differences are.

    It correlates the residuals of the ranks after a linear regression on the others' ranks. Intervals and p are
    Fisher's, with the variance 1.06/(n − 3 − k) of rank correlations (Fieller et al. 1957); p is at least 2/n!, as for
    all orders. With fewer than k + 5 values, or where the others explain all of one, the interval is (−1, 1) and p 1.
    """
    columns = [_checked(column) for column in (first, second, *given)]
    n, k = len(columns[0]), len(given)
    sizes = ", ".join(str(len(column)) for column in columns)
    require(len(set(map(len, columns))) == 1, f"the quantities have {sizes} values; give one of each a pair of runs")
    ranks = [stats.rankdata(column) for column in columns]
    design = np.column_stack([np.ones(n), *ranks[2:]])
    residuals = [rank - design @ np.linalg.lstsq(design, rank, rcond=None)[0] for rank in ranks[:2]]
    spreads = [np.linalg.norm(rest) for rest in residuals]
    is_left = all(spread > _ROUNDING * np.linalg.norm(rank) for spread, rank in zip(spreads, ranks, strict=False))
    if n < k + 5 or not is_left:
        return Paired(n, 0.0, (-1.0, 1.0), (-1.0, 1.0), p=1.0, error=np.inf, is_association=True)
    rho = float(np.clip(residuals[0] @ residuals[1] / (spreads[0] * spreads[1]), -1, 1))
    error, middle = np.sqrt(1.06 / (n - 3 - k)), np.arctanh(np.clip(rho, -_NEARLY_ONE, _NEARLY_ONE))
    reaches = [stats.norm.ppf((1 + level) / 2) * error for level in (0.95, 0.90)]
    ends = [tuple(np.tanh(middle + np.array([-1, 1]) * reach).tolist()) for reach in reaches]
    p = max(float(2 * stats.norm.sf(abs(middle) / error)), 2 / math.factorial(n))
    return Paired(n, rho, *ends, p=p, error=float(error), is_association=True)


def seeds_needed(differences: ArrayLike, effect: float) -> int:
    """How many pairs would show a mean difference of this size with 80 % power, at the spread of these `[n]`, n ≥ 2.

    It counts to 2²⁰ and no further. Raises `InputError` for an effect that is not above 0.
    """
    require(effect > 0, f"effect is {effect!r}; it must be above 0")
    deviation = float(_checked(differences, least=2).std(ddof=1))
    return bisect_left(
        range(_MOST_SEEDS), True, lo=2, key=lambda n: deviation / np.sqrt(n) * _detectable(n, ALPHA) <= effect
    )


def mean_interval(values: ArrayLike, level: float = 0.95) -> tuple[float, float, float]:
    """Mean of values `[n]` and the ends of its Student-t interval; nan where a value is missing (nan)."""
    require(0 < level < 1, f"level is {level!r}; it must be between 0 and 1")
    v = np.asarray(values, dtype=np.float64)
    require(len(v) >= 2, f"{len(v)} value(s); an interval needs at least 2")
    require(not np.isinf(v).any(), "a value is infinite; its mean has no interval")
    return (float(v.mean()), *_interval(v.mean(), v.std(ddof=1) / np.sqrt(len(v)), len(v), level))


def sign_flip_p(differences: ArrayLike) -> float | None:
    """Two-sided p of the mean under random signs; None below 6 pairs.

    Up to n = 14 it counts all 2ⁿ flips, beyond 100,000 random ones (the same each time); sums that differ by rounding
    alone count as equal.
    """
    d = _checked(differences)
    if len(d) < _FLIP_FROM:
        return None
    exact = len(d) <= _FLIP_EXACT_TO
    reached = (np.abs(_signs(len(d), exact) @ d) >= abs(d.sum()) - _ROUNDING * abs(d).sum()).sum()
    return float(reached / 2 ** len(d) if exact else (reached + 1) / (_FLIP_DRAWS + 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment of a family's p values, in their order (Holm 1979)."""
    for p in p_values:
        require_fraction("p value", float(p))
    order = np.argsort(p_values, kind="stable")
    scaled = np.asarray(p_values, dtype=np.float64)[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1)
    return adjusted.tolist()


def holm_levels(p_values: Sequence[float]) -> list[float]:
    """The level at which Holm's procedure tests each p value of a family, in their order: .05 over those left."""
    order = np.argsort(p_values, kind="stable")
    levels = np.empty(len(p_values))
    levels[order] = ALPHA / np.arange(len(p_values), 0, -1)
    return levels.tolist()


def verdict(
    differences: Paired, holm_p: float, margin: float, kind: Kind = "better", failed: Sequence[float] = (0.0,)
) -> Verdict:
    """The verdict on a claim from its differences, adjusted p, margin δ and each arm's share of failed runs.

    The differences are positive where the claim says so; the margin has their unit: 0.3 for accuracies in points, 0.003
    for shares. A claim that stands alone is judged by its own p, `differences.p`. The words are *negligible*,
    *reproduced*, *contradicted here* and *undecided*, of which the first fits whose condition holds. Raises
    `InputError` for an unknown kind, a margin that is not above 0, a p or a share that is none.
    """
    kinds = get_args(Kind)
    require(kind in kinds, f"kind is {kind!r}; there are {', '.join(map(repr, kinds))}")
    require_positive("margin", margin)
    for name, share in (("Holm p", holm_p), *(("failed share", share) for share in failed)):
        require_fraction(name, share)
    if max(failed, default=0.0) > MOST_FAILED:
        return Verdict(UNDECIDED, FAILED_RUNS)
    if not _ROUNDING * margin < differences.detectable() < np.inf:
        return Verdict(UNDECIDED, "all differences equal")
    low, high = differences.interval90
    inside = -margin < low and high < margin
    certain = holm_p <= ALPHA
    decided = certain and abs(differences.mean) >= margin
    if kind == "comparable":
        word = REPRODUCED if inside else CONTRADICTED if decided else UNDECIDED
    elif kind == "comparable or better":
        word = REPRODUCED if low > -margin else CONTRADICTED if decided and differences.mean < 0 else UNDECIDED
    elif inside:
        word = NEGLIGIBLE
    elif decided:
        word = REPRODUCED if differences.mean > 0 else CONTRADICTED
    else:
        word = UNDECIDED
    return Verdict(word, "only the sign is certain" if word == UNDECIDED and certain else "")


def _checked(values: ArrayLike, least: int = 0) -> np.ndarray:
    """Values `[n]` in float64; raises `InputError` for too few of them, or one that is not finite."""
    v = np.asarray(values, dtype=np.float64)
    require(v.ndim == 1, f"differences have shape {list(v.shape)}; give [n], one a pair")
    require(len(v) >= least, f"{len(v)} difference(s); a spread needs at least {least}")
    require(bool(np.isfinite(v).all()), "a value is not finite; count failed runs at chance level first")
    return v


def _interval(mean: float, error: float, n: int, level: float) -> tuple[float, float]:
    reach = stats.t.ppf((1 + level) / 2, n - 1) * error
    return float(mean - reach), float(mean + reach)


@lru_cache(maxsize=2)  # each is tens of megabytes
def _signs(n: int, exact: bool) -> np.ndarray:
    """Rows of n signs: all 2ⁿ, or random ones."""
    if exact:
        flips = np.arange(2**n)[:, None] >> np.arange(n) & 1
    else:
        flips = np.random.default_rng(0).integers(2, size=(_FLIP_DRAWS, n), dtype=np.int8)
    return (1 - 2 * flips).astype(np.float64)


@cache
def _detectable(n: int, alpha: float, margin: float = 0.0) -> float:
    """The mean, in standard errors, that a two-sided t test of n differences at a level finds with the wanted power.

    What it finds is the margin or more. The power is an average over the quantiles of the standard deviation (scipy's
    noncentral t fails far out).
    """
    quantiles = stats.chi2.ppf((np.arange(2000) + 0.5) / 2000, n - 1)
    threshold = np.maximum(stats.t.ppf(1 - alpha / 2, n - 1) * np.sqrt(quantiles / (n - 1)), margin)

    def lack(shift: float) -> float:
        return (stats.norm.sf(threshold - shift) + stats.norm.cdf(-threshold - shift)).mean() - POWER

    return float(optimize.brentq(lack, 0, threshold.max() + 10))
