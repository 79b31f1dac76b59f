import pytest

from lsr_core import bench, objective
from lsr_core.runs import Run, Schedule


def test_a_row_compares_two_things_in_one_run(monkeypatch):
    monkeypatch.setattr(bench, "STACK", 2)
    monkeypatch.setattr(bench, "_ROUNDS", 1)
    (row,) = bench.rows()
    assert row.keys() == {"name", "ours", "other", "unit", "ratio"}
    assert row["ratio"] == pytest.approx(row["other"] / row["ours"])


def test_the_plain_loop_refuses_what_it_does_not_know():
    with pytest.raises(TypeError, match="cross-entropy and label smoothing only"):
        bench.plain_loop(Run("digits", 50, objective("lsrkd"), Schedule(0.1, epochs=1), 0))
