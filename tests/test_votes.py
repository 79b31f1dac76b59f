"""The study of people's votes on CIFAR-10, whose constants are another study's."""

from dataclasses import replace

import numpy as np
import pytest

from lsr_core import InputError, objective
from lsr_core.run import TrainedTeacher
from lsr_core.store import Store
from study import claims, judging, pages, plans, published_records, studies, tuning
from study.arms import from_cifar100, rung_as_kd
from study.settings import CIFAR_5K, Setting

STUDY = "cifar10-votes"
VOTES = Setting("cifar10", 5000, STUDY)
KD = {"temperature": 4.0, "alpha": 0.5}
ROWS = {
    "cross-entropy": {"learning_rate": 0.1, "weight_decay": 0.01},
    "lsr": {"learning_rate": 0.1, "weight_decay": 0.01, "epsilon": 0.1},
    "kd": {"learning_rate": 0.05, "weight_decay": 0.02, **KD},
    "tf-kd-self": {"learning_rate": 0.05, "weight_decay": 0.01, **KD},
}


@pytest.fixture
def tuned_methods(monkeypatch):
    """Methods that are tuned on CIFAR-100 by plan, and no others; at first none."""
    methods = []
    judged = {"seeds": 3, "validation_accuracy": 0.4, "validation_nll": 2.0}
    found = {(*CIFAR_5K, method): [{**row, **judged}] for method, row in ROWS.items()}

    def rows(preset):
        return {place: own for place, own in found.items() if preset == CIFAR_5K.study and place[-1] in methods}

    monkeypatch.setattr(tuning, "published_rows", rows)
    tuning.tuned.cache_clear()
    yield methods
    tuning.tuned.cache_clear()


def test_no_arm_is_there_before_it_is_tuned(tuned_methods):
    assert studies.planned_arms(STUDY) == {"ladder": {}}
    with pytest.raises(InputError, match="'cross-entropy' is not tuned on cifar100, n = 5000, cifar100-5k"):
        list(studies.make(STUDY, Store()))
    tuned_methods += ["cross-entropy", "lsr"]
    tuning.tuned.cache_clear()
    arms = studies.planned_arms(STUDY)["ladder"]
    assert list(arms) == ["cross-entropy", "lsr", "strong teacher", "equal teacher"]


def test_an_arm_has_the_other_studys_constants_and_a_teacher_that_saw_the_same_images(tuned_methods):
    tuned_methods += ROWS
    kd, source = from_cifar100(VOTES, tuned="kd"), tuning.tuned(CIFAR_5K, "kd")
    assert (kd.data, kd.train) == ("cifar10", 5000)
    assert (kd.objective, kd.schedule, kd.network) == (source.objective, source.schedule, source.network)
    assert kd.augmentation == source.augmentation
    assert kd.teacher == TrainedTeacher(from_cifar100(VOTES, teacher_run="strong"))
    assert kd.at(10).teacher.run.data == "cifar10"
    permuted = from_cifar100(VOTES, rung_as_kd="ladder-permuted")
    assert permuted == replace(kd, objective=objective("ladder-permuted", **KD))
    assert permuted.objective == rung_as_kd(CIFAR_5K, "ladder-permuted").objective
    assert from_cifar100(VOTES, tuned="tf-kd-self").teacher.run == from_cifar100(VOTES, teacher_run="equal")


def test_every_claim_is_of_votes_and_none_is_there_twice():
    entries = plans.plan(STUDY).content["families"]["this study"].values()
    assert {entry["metric"] for entry in entries} == {"kl_dark", "kl_dark_scaled", "kl_posterior_scaled"}
    assert len({(*plans.arms_of(entry), entry["metric"]) for entry in entries}) == len(entries)


@pytest.fixture
def small(monkeypatch, tmp_path, image_file):
    """The study on 100 images with votes, two seeds, six epochs of small networks; a results folder of its own."""
    arrays = dict(np.load(image_file))
    votes = np.random.default_rng(0).integers(0, 3, (120, 10)) + 20 * np.eye(10, dtype=np.int64)[arrays["test_labels"]]
    np.savez(tmp_path / "voted.npz", **arrays, test_label_counts=votes)
    shorter = {
        STUDY: {"seeds = [10, 19]": "seeds = [10, 11]", '["cifar10", 5000]': f'["{tmp_path / "voted.npz"}", 100]'},
        CIFAR_5K.study: {"width = 16": "width = 4", "width = 32": "width = 6", "epochs = 20": "epochs = 6"},
    }
    for study, changes in shorter.items():
        text = (plans.FOLDER / study / "plan.toml").read_text()
        for old, new in changes.items():
            assert text.count(old) == 1
            text = text.replace(old, new)
        (tmp_path / "results" / study).mkdir(parents=True)
        (tmp_path / "results" / study / "plan.toml").write_text(text)
    for module in (plans, published_records):
        monkeypatch.setattr(module, "FOLDER", tmp_path / "results")
    monkeypatch.setitem(studies.STUDIES, STUDY, studies.planned_study(STUDY))
    tuning.planned_protocol.cache_clear()
    yield
    tuning.planned_protocol.cache_clear()


@pytest.mark.usefixtures("small")
def test_the_study_is_made_published_and_judged(tuned_methods, own_store, monkeypatch):
    tuned_methods += ROWS
    own = plans.plan(STUDY)
    assert list(studies.make(STUDY, own_store)) == [f"made {', '.join(tier)}" for tier in own.tiers]
    assert published_records.publish(STUDY, own_store) == {"ladder": 16}
    assert published_records.verify(STUDY) == 16
    monkeypatch.setitem(claims.CLAIMS, STUDY, tuple(claims.planned_claims(STUDY)))
    judgements = judging.judge_published(STUDY)
    assert [judgement.claim.base for judgement in judgements] == list(own.content["families"]["this study"])
    for judgement in judgements:
        assert judgement.differences.n == 2
        assert np.isfinite(judgement.differences.mean)
        assert "people's votes" in judgement.sentence
        assert judgement.claim.own
    shown = pages.show_published_claims([], judgements, "ladder")._repr_html_()
    assert "The arms of cifar10-votes in this chapter" in shown
    assert "votes on the wrong classes than a student of its permuted teacher (rung 3)" in shown
