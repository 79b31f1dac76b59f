import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from published import sealed

from lsr_core import InputError, objective
from lsr_core.data import DATASETS
from lsr_core.execute import execute
from lsr_core.run import Run, TrainedTeacher, key_of
from lsr_core.schedule import Schedule
from lsr_core.store import Store
from lsr_core.sweep import read_grid
from study import judging, published_records, studies
from study.claims import CLAIMS
from study.cli import main
from study.results import collect
from study.studies import DESKTOP, STUDIES, Study, published_study

CE = Run("digits", 50, objective("cross-entropy"), Schedule(0.1, epochs=2))
LSR = replace(CE, objective=objective("lsr"))
KD = replace(CE, objective=objective("kd"), teacher=TrainedTeacher(replace(CE, role="teacher")))
ARMS = {"first": {"ce": CE, "lsr": LSR}, "second": {"kd": KD}}
SEEDS = range(3)
PRESETS = ("desktop", "reference", "pilot_runs")  # whose descriptions of runs have changed
PUBLISHED = [name for name in published_records.presets() if any((published_records.FOLDER / name).glob("*.jsonl"))]
VERDICTS = Path(__file__).with_name("verdicts.json")
NUMBERS = ("mean", "low", "high")


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A study of nine short runs, with a results folder of its own; its records are made."""
    study = Study("tiny", SEEDS, lambda: ARMS, lambda: [arm.at(s) for s in SEEDS for arm in (CE, LSR, KD)])
    monkeypatch.setattr(studies, "STUDIES", {"tiny": study})
    monkeypatch.setattr(published_records, "FOLDER", tmp_path / "results")
    for run in study.runs():
        execute([run])  # not in a stack, so that it can be made again under the same conditions
    return tmp_path / "results" / "tiny"


def test_a_line_a_run_in_the_order_of_arms_and_seeds(tiny):
    assert published_records.publish("tiny", Store()) == {"first": 6, "second": 3}
    lines = [json.loads(line) for line in (tiny / "first.jsonl").read_text().splitlines()]
    assert [line["run"]["seed"] for line in lines] == [0, 1, 2, 0, 1, 2]
    assert [line["key"] for line in lines] == [arm.at(seed).key for arm in (CE, LSR) for seed in SEEDS]
    assert published_records.verify("tiny") == 9


@pytest.mark.usefixtures("tiny")
def test_what_is_published_are_six_digits_of_what_was_measured():
    published_records.publish("tiny", Store())
    results = published_records.results("tiny", [CE, KD])
    whole = collect([CE, KD], SEEDS)
    for arm in (CE, KD):
        np.testing.assert_allclose(results.values(arm, "nll"), whole.values(arm, "nll"), rtol=1e-5)
        np.testing.assert_allclose(results.values(arm, "accuracy"), whole.values(arm, "accuracy"), rtol=1e-5)


def test_an_arm_that_equals_another_has_no_lines_of_its_own(tiny, monkeypatch):
    """As where tuning chooses the constants that another arm carries; in its own chapter and in another."""
    twice = {"first": {"ce": CE, "lsr": LSR, "ce carried": CE}, "second": {"kd": KD, "lsr carried": LSR}}
    study = Study("tiny", SEEDS, lambda: twice)
    monkeypatch.setattr(studies, "STUDIES", {"tiny": study})
    assert published_records.publish("tiny", Store()) == {"first": 6, "second": 3}
    assert published_records.verify("tiny") == 9
    assert sorted(path.name for path in tiny.iterdir()) == ["first.jsonl", "second.jsonl"]
    assert published_records.named("tiny", ["kd", "lsr carried"])[0].arms == [KD, LSR]


@pytest.mark.usefixtures("tiny")
def test_a_chapter_of_many_runs_goes_on_in_another_file(monkeypatch):
    """Whole arms in each file, and none over the limit, of the project's own either."""
    monkeypatch.setattr(published_records, "MOST_LINES", 4)
    assert published_records.publish("tiny", Store()) == {"first": 3, "first-2": 3, "second": 3}
    assert published_records.verify("tiny") == 9
    assert published_records.lines("tiny")[LSR.at(1).key].where == "first-2.jsonl, line 2"
    assert not [
        path
        for path in Path(__file__).parent.parent.joinpath("results").rglob("*.jsonl")
        if path.stat().st_size > 2**20
    ]


@pytest.mark.usefixtures("tiny")
def test_lines_of_an_arm_that_is_no_more_are_not_lost(monkeypatch):
    published_records.publish("tiny", Store())
    others = Study("tiny", SEEDS, lambda: {"first": {"ce": CE}})
    monkeypatch.setattr(studies, "STUDIES", {"tiny": others})
    for command in (["publish", "tiny"], ["recompute", "tiny"]):
        said = CliRunner().invoke(main, ["results", *command])
        assert (said.exit_code, "6 published runs of tiny belong to none of its arms any more" in said.stderr) == (
            2,
            True,
        )
    assert len(published_records.lines("tiny")) == 9


@pytest.mark.parametrize("preset", ["desktop", "gtzan", "one-layer", "batchnorm", "translation-short"])
def test_a_finished_study_lacks_no_run(preset):
    assert sorted(published_records.lines(preset)) == sorted(published_records.planned_keys(preset))


def test_publishing_again_changes_no_byte_and_needs_no_record(tiny, tmp_path):
    published_records.publish("tiny", Store())
    before = {path.name: path.read_bytes() for path in tiny.iterdir()}
    published_records.publish("tiny", Store(tmp_path / "empty"))
    assert {path.name: path.read_bytes() for path in tiny.iterdir()} == before


@pytest.mark.usefixtures("tiny")
def test_an_arm_that_lacks_a_seed_is_left_out(own_store):
    own_store.remove(LSR.at(1).key)
    assert published_records.publish("tiny", own_store) == {"first": 5, "second": 3}
    assert published_records.verify("tiny") == 8
    assert published_records.results("tiny", [CE, LSR]).arms == [CE]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"seed": 0', '"seed": 7', r"tiny, first\.jsonl, line 1 is no published run: its key is not that"),
        ('"key": "', '"key": "f', r"line 1 is no published run"),
        ('{"key"', '{"kez"', r"line 1 is no published run"),
    ],
)
def test_a_line_that_was_edited_is_named(tiny, old, new, message):
    published_records.publish("tiny", Store())
    path = tiny / "first.jsonl"
    path.write_text(path.read_text().replace(old, new, 1))
    published_records.read.cache_clear()
    with pytest.raises(InputError, match=message):
        published_records.verify("tiny")


def test_lines_in_another_order_twice_or_of_no_arm_are_named(tiny, monkeypatch):
    published_records.publish("tiny", Store())
    path = tiny / "first.jsonl"
    first, second, *rest = path.read_text().splitlines()

    def rewritten(*lines):
        path.write_text("\n".join(lines) + "\n")
        published_records.read.cache_clear()

    rewritten(second, first, *rest)
    with pytest.raises(InputError, match=r"line 1: run \w+ belongs on line 2 of first\.jsonl"):
        published_records.verify("tiny")
    rewritten(first, first, second, *rest)
    with pytest.raises(InputError, match=r"line 2 has run \w+, which stands there twice"):
        published_records.verify("tiny")
    rewritten(first, second, *rest)
    monkeypatch.setitem(ARMS, "second", {})
    with pytest.raises(InputError, match=r"second\.jsonl, line 1: run \w+ belongs to no arm"):
        published_records.verify("tiny")


@pytest.mark.usefixtures("tiny")
def test_runs_are_made_again_to_the_same_bits_with_their_teachers():
    published_records.publish("tiny", Store())
    again = list(published_records.recompute("tiny", 9, np.random.default_rng(0)))
    assert len({run.key for run in again}) == 9
    assert all(run.alike and run.identical and run.holds and run.max_deviation == 0 for run in again)


def test_a_run_that_comes_out_differently_does_not_hold(tiny):
    published_records.publish("tiny", Store())
    path = tiny / "second.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    spread = np.std([line["metrics"]["nll"] for line in lines], ddof=1)
    for line in lines:
        line["exact"] = "0" * 16
        line["metrics"]["nll"] += 5 * spread
        line["provenance"]["processor"] = "another"
    path.write_text("".join(map(sealed, lines)))
    published_records.read.cache_clear()
    again = [run for run in published_records.recompute("tiny", 9, np.random.default_rng(0)) if "second" in run.where]
    assert not any(run.identical or run.alike or run.holds for run in again)
    np.testing.assert_allclose([run.max_deviation for run in again], 5, rtol=1e-3)
    other = replace(again[0], max_deviation=2.9)
    assert other.holds  # elsewhere three deviations are allowed
    assert not replace(other, alike=True).holds  # here only the same bits are


@pytest.mark.usefixtures("tiny")
def test_a_sample_must_be_there():
    published_records.publish("tiny", Store())
    with pytest.raises(InputError, match="sample is 10; tiny has 9 published runs"):
        list(published_records.recompute("tiny", 10, np.random.default_rng(0)))


# The study's own records.


def verdicts():
    """What is judged of the desktop preset's records, claim by claim."""
    kept = ("id", "verdict", *NUMBERS, "p", "n")
    rows = map(judging.summary, judging.judge_published("desktop"))
    return [{name: row[name] for name in kept} | {"p": judging.format_p(row["p"])} for row in rows]


@pytest.mark.parametrize("preset", PUBLISHED)
def test_the_published_records_are_what_they_say(preset):
    assert published_records.verify(preset) == len(published_records.lines(preset)) > 0


def test_the_verdicts_on_the_published_records_are_as_they_were():
    """The words and numbers of every claim; `python tests/test_published_records.py` writes them anew."""
    before = json.loads(VERDICTS.read_text())
    after = verdicts()
    assert [row["id"] for row in after] == [row["id"] for row in before]
    assert len(after) >= 10
    for row, old in zip(after, before, strict=True):
        numbers = {name: pytest.approx(value, rel=1e-9, abs=1e-12) for name, value in old.items() if name in NUMBERS}
        assert row == {**old, **numbers}


@pytest.mark.parametrize("preset", PUBLISHED)
def test_a_grid_holds_every_published_run_once_and_teachers_first(preset):
    study = STUDIES[preset]
    grid = study.runs()
    keys = [run.key for run in grid]
    assert len(set(keys)) == len(keys)
    wanted = {arm.at(seed).key for arms in study.arms().values() for arm in arms.values() for seed in study.seeds}
    assert wanted <= set(keys)
    for place, run in enumerate(grid):
        if isinstance(run.teacher, TrainedTeacher):
            assert run.teacher.run.key in keys[:place]


def test_a_grid_that_stops_leaves_complete_pairs():
    """Within a tier all runs of a seed come before the next seed's."""
    cifar = [run for run in DESKTOP.runs() if run.data == "cifar100"]
    seeds = [run.seed for run in cifar]
    tiers = np.split(seeds, np.flatnonzero(np.diff(seeds) < 0) + 1)
    assert all(set(tier) == set(DESKTOP.seeds) for tier in tiers)


def test_every_desktop_claim_is_judged_on_all_seeds_or_lacks_its_metric():
    judged = {judgement.claim.id: judgement for judgement in judging.judge_published("desktop")}
    assert all(judgement.differences.n == 10 for judgement in judged.values())
    lost = {claim.metric for claim in CLAIMS["desktop"] if claim.id not in judged}
    records = [line.record for line in published_records.lines("desktop").values()]
    assert not any(lost & record.metrics.keys() for record in records if record.run["data"]["name"] == "cifar100")


def test_no_data_is_needed_to_read_verify_and_judge(monkeypatch):
    def unread(*_):
        raise AssertionError("a data set was read")

    for source in {type(source) for source in DATASETS.values()}:
        monkeypatch.setattr(source, "split", unread)
    assert published_records.verify("desktop") > 0
    assert judging.judge_published("desktop")


def test_an_unknown_study_is_refused():
    with pytest.raises(InputError, match=r"'paperback' is not published; there are desktop, .*cifar100-5k, "):
        published_study("paperback")


def test_the_command_line_publishes_verifies_and_makes_again(tiny, tmp_path):
    call = CliRunner().invoke
    assert call(main, ["results", "grid", "tiny", str(tmp_path / "grid.jsonl")]).exit_code == 0
    assert len(read_grid(tmp_path / "grid.jsonl")) == 9
    said = call(main, ["results", "publish", "tiny"])
    assert said.stdout.splitlines() == ["tiny/first.jsonl: 6 runs", "tiny/second.jsonl: 3 runs", "tiny: 0 verdicts"]
    assert call(main, ["results", "verify"]).stdout == "tiny: 9 runs are what they say; 0 verdicts follow\n"
    again = call(main, ["results", "recompute", "tiny", "--sample", "2", "--seed", "0"])
    assert again.exit_code == 0, again.output
    assert again.stdout.count(": identical\n") == 2
    assert call(main, ["results", "recompute", "tiny", "--sample", "2", "--seed", "0"]).stdout == again.stdout
    path = tiny / "first.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(sealed({**line, "exact": "x"}) for line in lines))
    published_records.read.cache_clear()
    again = call(main, ["results", "recompute", "tiny", "--sample", "9"])
    assert again.exit_code == 2
    assert "6 of 9 runs did not come out as published" in again.stderr
    unknown = call(main, ["results", "verify", "paperback"])
    assert unknown.exit_code == 2
    assert "'paperback' is not published; there are tiny" in unknown.stderr


def before(run):
    """The description that a run had while schedules had a clipped gradient and averaged weights, which none used."""
    schedule = {("shape" if name == "curve" else name): value for name, value in run["schedule"].items()}
    teacher = run["teacher"]
    taught = {**teacher, "run": before(teacher["run"])} if teacher and "run" in teacher else teacher
    return {**run, "schedule": {**schedule, "clip": None, "average": None}, "teacher": taught}


@pytest.mark.parametrize("preset", PRESETS)
def test_a_line_describes_the_run_that_its_former_key_named(preset):
    former = [line for line in published_records.lines(preset).values() if line.formerly]
    assert len(former) >= 3
    for line in former:
        assert key_of(before(line.record.run)) == line.formerly


if __name__ == "__main__":
    rows = ",\n".join(json.dumps(row, ensure_ascii=False) for row in verdicts())
    VERDICTS.write_text(f"[\n{rows}\n]\n")
