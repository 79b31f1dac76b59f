import math

from scipy import stats

from lsr_core import claims, experiments, statistics
from lsr_core.claims import CLAIMS, IDENTITIES, MULLER, Claim, Identity, Judgement
from lsr_core.experiments import DIGITS, MEASURES
from lsr_core.records import Store


def test_every_claim_has_its_own_identifier_and_a_family_of_at_most_six():
    identifiers = [claim.id for claim in (*CLAIMS, *IDENTITIES)]
    assert len(set(identifiers)) == len(identifiers)
    for paper in {claim.paper for claim in CLAIMS}:
        assert sum(claim.paper == paper for claim in CLAIMS) <= 6


def test_a_false_identity_is_refuted(monkeypatch):
    false = Identity("X", "nobody", "x is 2x", "none", lambda: 1.0)
    monkeypatch.setattr(claims, "IDENTITIES", (false,))
    (judgement,) = claims.judge_identities()
    assert str(judgement.verdict) == "refuted"


def test_identities_are_judged_by_chapter():
    chapters = {judgement.claim.chapter for judgement in claims.judge_identities("many_losses")}
    assert chapters == {"many_losses"}


def test_lsr_against_cross_entropy_at_60_seeds_is_what_scipy_makes_of_the_records():
    """The interval and Holm p that the book prints, recomputed from the files in the store."""
    seeds = experiments.paired_seeds(60)
    judgements = claims.judge(seeds, "quick", paper=MULLER)
    store = Store()
    family = {}
    for setting in DIGITS:
        accuracy = {}
        for method in ("lsr", "cross-entropy"):
            by_seed = {
                r.run["seed"]: r.metrics
                for r in store
                if (r.run["data"]["train"], r.run["objective"]["method"]) == (setting.train, method)
            }
            assert sorted(by_seed) == list(seeds)
            accuracy[method] = by_seed
        for name, metric, scale in (("B1", "accuracy", 100), ("M2a", "ece", -1), ("M2b", "nll_scaled", -1)):
            pairs = [scale * (accuracy["lsr"][s][metric] - accuracy["cross-entropy"][s][metric]) for s in seeds]
            family[f"{name}-{setting.train}"] = stats.ttest_1samp(pairs, 0)
    raw = [family[j.claim.id].pvalue for j in judgements]
    step_down, adjusted = 0.0, {}
    for rank, place in enumerate(sorted(range(len(raw)), key=raw.__getitem__)):
        step_down = max(step_down, min(1.0, (len(raw) - rank) * raw[place]))
        adjusted[judgements[place].claim.id] = step_down
    board = claims.board(judgements)
    for judgement in judgements:
        test, digits = family[judgement.claim.id], MEASURES[judgement.claim.metric].digits
        low, high = test.confidence_interval(0.95)
        mean = (low + high) / 2
        printed = f"{mean:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]".replace("-", "−")
        assert board.loc[judgement.claim.id, "effect, 95 % interval"] == printed
        p = adjusted[judgement.claim.id]
        assert math.isclose(judgement.holm_p, p, rel_tol=1e-6, abs_tol=1e-12)
        assert board.loc[judgement.claim.id, "Holm p"] == claims.format_p(p)
        assert not judgement.exploratory


def test_fewer_seeds_are_marked_exploratory(monkeypatch):
    few = [claim for claim in CLAIMS if claim.id == "B1-100"]
    monkeypatch.setattr(claims, "CLAIMS", tuple(few))
    (judgement,) = claims.judge([0, 1, 2])
    assert judgement.exploratory
    assert "exploratory" in judgement.sentence
    assert "exploratory" in claims.board([judgement]).loc["B1-100", "preset"]


def test_arms_that_are_one_have_no_difference(monkeypatch):
    alike = Claim("X", "nobody", "LSR is LSR", "none", DIGITS[0], "lsr", "lsr")
    monkeypatch.setattr(claims, "CLAIMS", (alike,))
    (judgement,) = claims.judge([0, 1, 2])
    assert (judgement.verdict.word, judgement.holm_p) == ("negligible", 1.0)


def test_an_undecided_claim_says_what_it_would_have_seen():
    summed = statistics.paired([-3.0, 1.0, 4.0])
    claim = Claim("X", "nobody", "a beats b", "none", DIGITS[0], "lsr", "lsrkd")
    judgement = Judgement(claim, "quick", statistics.verdict(summed, summed.p, 0.3), summed, summed.p)
    assert judgement.verdict.word == "undecided"
    assert f"would have shown {summed.detectable:.2f} with 80 % power" in judgement.sentence


def test_p_values_are_printed_as_papers_do():
    assert [claims.format_p(p) for p in (None, 1.0, 0.04123, 0.00001)] == ["–", "1", ".0412", "< .0001"]
