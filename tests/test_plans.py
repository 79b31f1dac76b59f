import json
import re
import shutil
from contextlib import contextmanager

import pytest
import torch
from click.testing import CliRunner
from published import sealed

from lsr_core import InputError
from lsr_core.store import Store
from study import claims, plans, published_records, search, studies, tuning
from study.arms import with_objective
from study.cli import main
from study.settings import DIGITS, Setting
from study.studies import STUDIES
from study.tuning import TUNED, best_trial, cells, methods_of, rows_of, tuned

PLAN = """
seeds = [10, 12]
settings = [["digits", 50], ["mixture-10-80", 50]]
tiers = [["cross-entropy", "lsr"], ["kd", "rung", "lsr carried", "generation 1"]]

[only]
"mixture-10-80, n = 50" = ["cross-entropy", "lsr"]

[margins]
accuracy = 0.3

[protocol]
student = { hidden = [16] }
strong = { hidden = [32] }
weak = { hidden = [4] }
schedule = { learning_rate = 0.1, epochs = 2 }
every = 2

[tuning]
seeds = [1000, 1001, 1002]
first = 2
kept = 2
steps = 1

[tuning.ladders]
learning_rate = [0.05, 0.1, 0.2, 0.4]
epsilon = [0.01, 0.1, 0.2, 0.3]

[tuning.trials]
cross-entropy = { learning_rate = [0.1, 0.2], weight_decay = [0.001] }
lsr = { rate = [1.0, 0.5], epsilon = [0.1, 0.2] }
kd = { rate = [1.0], temperature = [1.0, 4.0], alpha = [0.5] }
self-distillation-released = { teacher = "equal", rate = [1.0], temperature = [4.0], alpha = [0.2, 0.4] }

[arms.label_smoothing]
cross-entropy = { tuned = "cross-entropy" }
lsr = { tuned = "lsr" }
"lsr carried" = { carried = "lsr" }

[arms.distillation]
kd = { tuned = "kd" }
rung = { rung_as_kd = "ladder-uniform" }
"generation 1" = { generation = 1 }

[families.first]
B1 = { method = "lsr", control = "cross-entropy" }
H2 = { method = "kd", control = "cross-entropy" }
B2 = { method = "lsr", control = "cross-entropy", settings = [["mixture-10-80", 50]] }

[families.second]
O1 = { terms = [[1, "kd"], [-1, "rung"]] }
"""


@pytest.fixture
def written(tmp_path, monkeypatch):
    """A function that writes the plan of a study `tiny` into a results folder of its own, and reads it."""
    monkeypatch.setattr(plans, "FOLDER", tmp_path / "results")

    def write(text):
        path = plans.FOLDER / "tiny" / "plan.toml"
        path.parent.mkdir(parents=True)
        path.write_text(text)
        return plans.plan("tiny")

    return write


@contextmanager
def study_in(folder):
    """That plan's study in a results folder of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plans, "FOLDER", folder)
        patch.setattr(published_records, "FOLDER", folder)
        patch.setattr(tuning, "FOLDER", folder / "tuning")
        patch.setitem(TUNED, "tiny", plans.plan("tiny").settings)
        patch.setitem(STUDIES, "tiny", studies.planned_study("tiny"))
        caches = tuning.published_rows, tuning.tuned, tuning.planned_protocol
        for cached in caches:
            cached.cache_clear()
        yield
    for cached in caches:
        cached.cache_clear()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The results folder of that study, tuned and run; the store; and what was said."""
    folder = tmp_path_factory.mktemp("project") / "results"
    (folder / "tiny").mkdir(parents=True)
    (folder / "tiny" / "plan.toml").write_text(PLAN)
    shutil.copytree(tuning.FOLDER, folder / "tuning")
    store = Store(folder.parent / "records")
    with study_in(folder):
        said = list(studies.make("tiny", store))
    return folder, store, said


@pytest.fixture
def tiny(made):
    """The plan, the store, and what was said."""
    folder, *others = made
    with study_in(folder):
        yield plans.plan("tiny"), *others


def test_a_plan_is_tuned_run_and_published_in_its_order(tiny):
    own, store, said = tiny
    assert said == [
        "tuned digits, n = 50: cross-entropy",
        "tuned digits, n = 50: lsr",
        "made digits, n = 50: cross-entropy, digits, n = 50: lsr",
        "tuned mixture-10-80, n = 50: cross-entropy",
        "tuned mixture-10-80, n = 50: lsr",
        "made mixture-10-80, n = 50: cross-entropy, mixture-10-80, n = 50: lsr",
        "tuned digits, n = 50: kd",
        "tuned digits, n = 50: self-distillation-released",
        "made digits, n = 50: kd, digits, n = 50: rung, digits, n = 50: lsr carried, digits, n = 50: generation 1",
    ]
    runs = STUDIES["tiny"].runs()
    assert all(run.key in store for run in runs)
    assert {run.seed for run in runs} == set(own.seeds)
    assert published_records.publish("tiny", store) == {"label_smoothing": 15, "distillation": 9}
    assert published_records.verify("tiny") == 24
    assert next(studies.make("tiny", store)).startswith("made")  # nothing is tuned twice


def test_trials_go_in_rounds(tiny):
    """All on the first seeds, the best again on all, then steps beyond an edge and other decays, on all."""
    own, *_ = tiny
    for setting in own.settings:
        rows = rows_of(setting, "lsr")
        assert [row["seeds"] for row in rows[:4]].count(2) == 2  # `first` of them, for those that were not kept
        assert {row["seeds"] for row in rows[4:]} == {3}
        assert len(rows) in (6, 7)
        chosen = best_trial(rows)
        assert chosen["seeds"] == len(chosen["accuracies"]) == 3
        assert (chosen["data"], chosen["train"], chosen["study"]) == setting
        assert tuned(setting, "lsr").objective.epsilon == chosen["epsilon"]


def test_arms_by_setting(tiny):
    own, *_ = tiny
    digits, mixture = own.settings
    found = studies.arms_by_setting("tiny")
    assert list(found) == [Setting("digits", 50, "tiny"), Setting("mixture-10-80", 50, "tiny")]
    assert list(found[digits]) == own.names
    assert list(found[mixture]) == ["cross-entropy", "lsr"]
    assert found[mixture]["lsr"] == STUDIES["tiny"].arms()["label_smoothing"]["mixture-10-80, n = 50: lsr"]
    assert found[digits]["lsr carried"] == with_objective(found[digits]["cross-entropy"], "lsr", epsilon=0.2)
    assert tuned(DIGITS[0], "lsr").objective.epsilon == 0.2
    claims = own.content["families"]["first"]
    assert [own.settings_of(claims[name]) for name in ("B1", "H2", "B2")] == [[digits, mixture], [digits], [mixture]]


def test_a_plan_of_one_setting_names_it_nowhere():
    own = plans.plan("cifar100-5k")
    assert own.settings == (Setting("cifar100", 5000, "cifar100-5k"),)
    assert own.name_in(own.settings[0], "lsr") == "lsr"
    assert [arms for _, arms in own.steps] == own.tiers


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('["kd", "rung"', '["kdd", "rung"', "a tier names the arm 'kdd', which it does not have"),
        ('method = "kd"', 'method = "kdd"', "claim H2 names the arm 'kdd', which it does not have"),
        ('[-1, "rung"]', '[-1, "rang"]', "claim O1 names the arm 'rang', which it does not have"),
        ('[["mixture-10-80", 50]] }', '[["digits", 77]] }', "claim B2 names the setting 'digits, n = 77', which"),
        ('{ method = "kd"', '{ settings = [["mixture-10-80", 50]], method = "kd"', "claim H2 is tried nowhere"),
        ('n = 50" = ["cross-entropy"', 'n = 50" = ["ce"', "mixture-10-80, n = 50 names the arm 'ce', which"),
        ('"mixture-10-80, n = 50" =', '"mixture, n = 50" =', "`only` names the setting 'mixture, n = 50', which"),
        ("[families.first]", "[families]", "claim B1 stands in no family; its table is [families.<paper>.B1]"),
        ("[families.first]", "[families.none]\n[families.first]", "the family 'none' is empty; it needs a claim"),
        ("[families.second]", "[claims]", "unknown part 'claims'; there are seeds, stages, "),
        ("seeds = [10, 12]", "seeds = [10, 12]\nstages = [2]", "stages are [2]; they must rise to all seeds"),
        ('{ terms = [[1, "kd"], [-1, "rung"]] }', '"kd"', "claim O1 compares no arms; it needs `terms`, or a `method`"),
        ('H2 = { method = "kd", ', "H2 = { ", "claim H2 compares no arms"),
    ],
)
def test_a_plan_is_refused_for_what_it_lacks_or_leaves_outside_its_families(written, old, new, message):
    assert PLAN.count(old) == 1
    with pytest.raises(InputError, match=f"plan of tiny: {re.escape(message)}"):
        written(PLAN.replace(old, new))


def test_a_plan_that_is_changed_after_its_records_is_refused(tiny):
    own, store, _ = tiny
    published_records.publish("tiny", store)
    path = plans.FOLDER / "tiny" / "plan.toml"
    path.write_text(PLAN.replace("accuracy = 0.3", "accuracy = 0.5"))
    plans.read.cache_clear()
    changed = plans.plan("tiny").hash
    try:
        for read in (published_records.verify, lambda study: published_records.publish(study, store)):
            with pytest.raises(
                InputError, match=f"tiny, .*line 1 was published with the plan {own.hash}, .* {changed};"
            ):
                read("tiny")
        refused = CliRunner().invoke(main, ["results", "make", "tiny"])
        assert refused.exit_code == 2
        assert f"was published with the plan {own.hash}, " in refused.stderr
    finally:
        path.write_text(PLAN)
        plans.read.cache_clear()
    assert published_records.verify("tiny") == 24


def test_a_record_without_the_hash_of_the_plan_is_refused(tiny):
    _, store, _ = tiny
    published_records.publish("tiny", store)
    path = plans.FOLDER / "tiny" / "distillation.jsonl"
    first, *others = map(json.loads, path.read_text().splitlines())
    del first["plan"]
    path.write_text("".join(map(sealed, [first, *others])))
    published_records.read.cache_clear()
    with pytest.raises(InputError, match=r"tiny, distillation\.jsonl, line 1 was published with the plan None"):
        published_records.lines("tiny")
    path.unlink()
    published_records.read.cache_clear()


def test_a_study_without_plan_is_refused():
    refused = CliRunner().invoke(main, ["results", "make", "desktop"])
    message = "lsr: 'desktop' has no plan; it must stand in results/desktop/plan.toml\n"
    assert (refused.exit_code, refused.stderr) == (2, message)


@pytest.mark.parametrize("study", plans.planned())
def test_every_plan_has_what_its_arms_need(study):
    """Trials of every method that an arm is tuned by, in rounds 12 each, and a margin of every metric judged."""
    own = plans.plan(study)
    for setting in own.settings:
        for method in methods_of(setting):
            count = len(cells(method, setting))
            assert count in (12, 6) or not search.has_rounds(setting), method
        for call in own.calls(setting).values():
            assert call.get("tuned") in (None, *methods_of(setting))
    metrics = {
        claim.get("metric", "accuracy") for family in own.content["families"].values() for claim in family.values()
    }
    assert metrics <= set(own.content["margins"])
    assert sorted(own.names) == sorted({arm for tier in own.tiers for arm in tier})
    assert own.seeds.stop <= 1000
    assert not own.trials or min(own.content["tuning"]["seeds"]) >= 1000


def test_stages_give_all_arms_some_seeds_before_any_has_the_others(written):
    own = written(PLAN.replace("seeds = [10, 12]", "seeds = [10, 12]\nstages = [2, 3]"))
    assert own.stages == [range(10, 12), range(12, 13)]


@pytest.fixture
def gpu_tuned(monkeypatch):
    """The preset for a borrowed GPU as it is once its baseline is tuned."""
    (setting,) = plans.plan("gpu").settings
    row = {"learning_rate": 0.1, "weight_decay": 5e-4, "seeds": 1, "validation_accuracy": 0.7, "validation_nll": 1.0}
    rows = {(*setting, "cross-entropy"): [row]}
    monkeypatch.setattr(tuning, "published_rows", lambda preset: rows if preset == "gpu" else {})
    tuning.tuned.cache_clear()
    yield setting
    tuning.tuned.cache_clear()


@pytest.mark.usefixtures("gpu_tuned")
def test_wherever_the_gpu_preset_stops_complete_pairs_stand():
    """Six arms to three seeds, then the teacher, its students and the others; then all to five."""
    arms, order = studies.arms_by_key("gpu"), STUDIES["gpu"].runs()
    named = [(arms.get(run.key), run.seed) for run in order]
    first = plans.plan("gpu").tiers[0]
    assert named[:18] == [(arm, seed) for seed in (10, 11, 12) for arm in first]
    assert named[18:26] == [(arm, 10) for arm in plans.plan("gpu").tiers[1]]
    assert {seed for _, seed in named[:42]} == {10, 11, 12}
    assert len(order) == 5 * len(plans.plan("gpu").names) == 70
    assert {run.network.architecture for run in order} == {"resnet18", "mobilenetv2"}
    de_kd = studies.planned_arms("gpu")["weak_teachers"]["de-kd"]
    assert de_kd.teacher.epoch == 1
    assert de_kd.teacher.run == studies.planned_arms("gpu")["distillation"]["teacher"]


@pytest.mark.usefixtures("gpu_tuned")
def test_a_preset_is_made_where_it_can_be(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=r"preset 'gpu' is made on a GPU, and torch .* finds none here"):
        studies.require_device("gpu")
    refused = CliRunner().invoke(main, ["results", "make", "gpu"])
    assert (refused.exit_code, "made on a GPU" in refused.stderr) == (2, True)
    with pytest.raises(InputError, match="preset 'cifar100-5k' is tuned in rounds; `lsr results make cifar100-5k`"):
        next(studies.groups("cifar100-5k", Store()))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('H2 = { method = "kd",', 'H2 = { kid = "better", method = "kd",', "claim H2 has an unknown entry 'kid'"),
        ('H2 = { method = "kd",', 'H2 = { metric = "eec", method = "kd",', "claim H2 needs a margin of 'eec'"),
        ('"generation 1"]]', "]]", "the arm 'generation 1' needs a tier"),
        (
            "seeds = [1000, 1001, 1002]",
            "seeds = [10]",
            "seeds for verdicts are below 1000, those for tuning from 1000 on",
        ),
        ("seeds = [10, 12]", "seeds = [999, 1001]", "seeds for verdicts are below 1000"),
        ("accuracy = 0.3", "accuracy =", "plan of tiny is no TOML"),
    ],
)
def test_a_plan_is_refused_whose_verdicts_would_be_others(written, old, new, message):
    assert old in PLAN
    with pytest.raises(InputError, match=message):
        written(PLAN.replace(old, new))


def test_two_claims_of_one_name_are_refused(written, monkeypatch):
    without_text, text = (
        PLAN.replace('["digits", 50]', '["mixture-10-80", 60]'),
        'text = "LSR wins", chapter = "ladder", ',
    )
    own = written(without_text.replace("B2 = { ", f"B2 = {{ {text}"))
    run = with_objective(tuned(DIGITS[0], "cross-entropy"), "lsr")
    monkeypatch.setattr(claims, "arms_by_setting", lambda _: {s: dict.fromkeys(own.names, run) for s in own.settings})
    with pytest.raises(InputError, match="plan of tiny: two claims are called B1-80-tiny"):
        claims.planned_claims("tiny")
    monkeypatch.setattr(claims, "_TEXTS", {})
    with pytest.raises(InputError, match="plan of tiny: claim B1 needs a text and a chapter"):
        claims.planned_claims("tiny")
