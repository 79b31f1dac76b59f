import math

import pytest
import torch
from scipy.stats import kstest, rankdata
from torch import nn

from lsr_core import InputError, teachers
from lsr_core.losses import divergence
from lsr_core.teachers import CorrectedUniform, Share, TargetGap, Uniform, VirtualTeacher, probabilities

LABELS = torch.tensor([[0, 3], [9, 1]])


@pytest.mark.parametrize("teacher", [Uniform(), Share(0.0), CorrectedUniform(0.4), TargetGap(6.0), VirtualTeacher()])
def test_teachers_are_distributions_with_their_share_on_the_label(teacher):
    q = probabilities(teacher, LABELS, 10, temperature=4.0, dtype=torch.float64)
    assert q.shape == (2, 2, 10)
    torch.testing.assert_close(q.sum(-1), torch.ones(2, 2, dtype=torch.float64))
    right = q.gather(-1, LABELS[..., None])[..., 0]
    torch.testing.assert_close(right, torch.full_like(right, teacher.share(10, 4.0)))
    scores = teachers.share_scores(right, LABELS, 10)
    torch.testing.assert_close(scores.exp(), q)


def test_the_lowest_correction_is_the_uniform_teacher():
    assert CorrectedUniform(0.1).share(10, 4.0) == Uniform().share(10, 4.0)
    assert TargetGap(0.0).share(10, 4.0) == pytest.approx(0.1)


@pytest.mark.parametrize("share", [-0.1, 0, 1.01, float("nan")])
def test_a_share_that_is_no_correction_is_refused(share):
    with pytest.raises(InputError, match="share is"):
        CorrectedUniform(share)


def test_a_share_below_the_uniform_one_is_refused_on_use():
    with pytest.raises(InputError, match=r"share is 0.05; with 10 classes it must be at least 1/10"):
        CorrectedUniform(0.05).share(10, 1.0)


def test_a_negative_gap_is_refused():
    with pytest.raises(InputError, match="gap is -1"):
        TargetGap(-1)


@pytest.mark.parametrize("correct", [0.0, 1.0, -0.2, 1])
def test_a_virtual_teacher_that_cannot_be_is_refused(correct):
    with pytest.raises(InputError, match=r"correct is .*; it must be a number between 0 and 1"):
        VirtualTeacher(correct)


@pytest.mark.parametrize(
    ("classes", "tau", "released", "power"),
    [
        (10, 20, (0.104539, 0.099496), (0.134982, 0.096113)),
        (100, 10, (0.011029, 0.009990), (0.024696, 0.009852)),
        (100, 20, (0.010502, 0.009995), (0.015741, 0.009942)),
        (100, 40, (0.010248, 0.009997), (0.012551, 0.009974)),
        (200, 20, (0.005252, 0.004999), (0.008172, 0.004984)),
        (1000, 20, (0.001051, 0.001000), (0.001776, 0.000999)),
    ],
)
def test_how_uniform_the_virtual_teacher_is(classes, tau, released, power):
    for reading, (right, wrong) in (("logits", released), ("power", power)):
        share = VirtualTeacher(0.99, reading).share(classes, tau)
        assert share == pytest.approx(right, abs=6e-7)
        assert (1 - share) / (classes - 1) == pytest.approx(wrong, abs=6e-7)


@pytest.mark.parametrize("reading", ["logits", "power"])
def test_the_virtual_teacher_is_the_softmax_that_it_says(reading):
    p_d = torch.full((10,), 0.01 / 9, dtype=torch.float64)
    p_d[4] = 0.99
    softened = (p_d if reading == "logits" else p_d.log()).div(20).softmax(-1)
    assert VirtualTeacher(0.99, reading).share(10, 20.0) == pytest.approx(softened[4].item(), rel=1e-12)


def test_the_gap_that_the_virtual_teacher_asks_for():
    power = VirtualTeacher(0.99, "power").share(100, 1.0)
    assert math.log(power * 99 / (1 - power)) == pytest.approx(9.19, abs=0.005)
    logits = VirtualTeacher(0.99, "logits").share(100, 1.0)
    assert math.log(logits * 99 / (1 - logits)) == pytest.approx(0.99, abs=0.001)


def test_the_mean_of_teachers_is_the_mean_of_their_distributions(generator):
    logits = 3 * torch.randn(3, 7, 10, generator=generator, dtype=torch.float64)
    mean = (logits / 4).softmax(-1).mean(0)
    torch.testing.assert_close(teachers.mean_scores(logits, 4.0).softmax(-1), mean)
    student = torch.randn(7, 10, generator=generator, dtype=torch.float64).requires_grad_()
    each = torch.stack([divergence(teacher, student, 4.0, 4.0) for teacher in logits]).mean(0)
    gradients = [
        torch.autograd.grad(value.sum(), student)[0]
        for value in (each, divergence(teachers.mean_scores(logits, 4.0), student, 4.0))
    ]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-14)


def test_knowledge_adjustment_leaves_a_right_teacher_alone_and_corrects_a_wrong_one():
    q = torch.tensor([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1]])
    labels = torch.tensor([0, 2])
    replaced = teachers.replace_wrong(q.log(), labels, 0.9).exp()
    torch.testing.assert_close(replaced, torch.tensor([[0.7, 0.2, 0.1], [0.05, 0.05, 0.9]]))
    shifted = teachers.shift_wrong(q.log(), labels).exp()
    torch.testing.assert_close(shifted, torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.2, 0.7]]))
    both = teachers.mean_scores(q.log()[None], 1.0, labels, 0.9)
    torch.testing.assert_close(both.softmax(-1).float(), replaced)


def test_a_similarity_makes_a_prior():
    prior = teachers.similarity_prior(torch.eye(4), temperature=0.5)
    torch.testing.assert_close(prior.sum(-1), torch.ones(4))
    assert (prior.argmax(-1) == torch.arange(4)).all()
    with pytest.raises(InputError, match="similarity must be a square matrix"):
        teachers.similarity_prior(torch.ones(2, 3))


def test_zipf_ranks_are_scipys_smallest_ranks(generator):
    votes = torch.randint(4, (50, 10), generator=generator).float()  # many ties
    ranks = torch.from_numpy(rankdata(-votes.numpy(), axis=1, method="min"))
    torch.testing.assert_close(teachers.zipf_scores(votes).exp(), 1 / ranks.float())


def test_dense_votes_count_the_positions(generator):
    features = torch.randn(5, 3, 4, 4, generator=generator)
    classifier = nn.Linear(3, 7)
    votes = teachers.dense_votes(features, classifier)
    assert (votes.sum(-1) == 16).all()
    by_hand = classifier(features[2].flatten(1).T).argmax(-1).bincount(minlength=7)
    assert votes[2].tolist() == by_hand.tolist()


def test_beta_draws_are_beta(generator):
    draws = teachers.beta_draws((20_000,), 3.0, [generator])
    assert kstest(draws.numpy(), "beta", args=(3.0, 1.0)).pvalue > 1e-3
    assert draws.mean().item() == pytest.approx(0.75, abs=0.01)


def test_draws_are_matched_by_rank():
    draws, confidence = torch.tensor([0.9, 0.1, 0.5]), torch.tensor([0.3, 0.8, 0.2])
    torch.testing.assert_close(teachers.matched_by_rank(draws, confidence), torch.tensor([0.5, 0.9, 0.1]))


def test_rungs_keep_what_they_say(generator):
    logits = 3 * torch.randn(2, 40, 10, generator=generator, dtype=torch.float64)
    labels = torch.randint(10, (2, 40), generator=generator)
    index = torch.arange(40)
    q = (logits / 4).softmax(-1)
    confident = teachers.keep_confidence(logits, labels, 4.0).softmax(-1)
    permuted = teachers.permute_wrong(logits, labels, index).div(4).softmax(-1)
    for kept in (confident, permuted):
        torch.testing.assert_close(kept.gather(-1, labels[..., None]), q.gather(-1, labels[..., None]))
    wrong = confident.scatter(-1, labels[..., None], 0)
    assert (wrong.amax(-1) - wrong.where(wrong > 0, 1.0).amin(-1)).abs().max() < 1e-12
    torch.testing.assert_close(permuted.sort(-1).values, q.sort(-1).values)
    assert ((permuted - q).abs().amax(-1) > 1e-3).double().mean() > 0.95


def test_a_permutation_belongs_to_its_image_and_is_fair(generator):
    logits = torch.arange(5.0).expand(20_000, 5)
    labels = torch.full((20_000,), 2)
    index = torch.arange(20_000)
    permuted = teachers.permute_wrong(logits, labels, index)
    some = torch.randperm(20_000, generator=generator)[:100]
    assert torch.equal(teachers.permute_wrong(logits[some], labels[some], index[some]), permuted[some])
    assert (permuted[:, 2] == 2).all()
    for place in (0, 1, 3, 4):
        counts = permuted[:, place].long().bincount(minlength=5)
        assert counts[2] == 0
        assert (counts[[0, 1, 3, 4]] - 5000).abs().max() < 300  # five standard deviations
