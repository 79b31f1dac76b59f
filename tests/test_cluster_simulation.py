"""The simulated cluster, where its span is known in closed form."""

from dataclasses import replace
from math import inf

import pytest
from cluster_simulation import RUNS, Case, row, span

FREE = Case(seconds=60, workers=100, stack=1, chain=1, handed=inf, requests=inf)


def test_without_limits_the_workers_are_always_busy():
    assert span(FREE) == pytest.approx(RUNS * 60 / 100)
    assert row(FREE)["limit"] == "training"


@pytest.mark.parametrize("change", [{"handed": 2.0}, {"requests": 2.0}])
def test_a_slow_driver_and_a_slow_store_set_the_pace(change):
    slow = replace(FREE, seconds=1, workers=1000, **change)
    assert span(slow) == pytest.approx(RUNS / 2, rel=0.02)
    assert row(slow)["limit"] == {"handed": "the driver", "requests": "the store"}[next(iter(change))]


def test_more_workers_than_a_level_has_stacks_wait_for_teachers():
    chained = replace(FREE, workers=10**6, chain=10, handed=inf)
    assert span(chained) == pytest.approx(10 * 60)
    assert row(chained)["limit"] == "teachers in sequence"


def test_few_large_stacks_leave_workers_waiting():
    large = replace(FREE, workers=10_000, stack=32)  # 31,250 stacks: four turns, the last of few
    assert span(large) == pytest.approx(4 * 32 * 60)
    assert row(large)["limit"] == "few large stacks"
