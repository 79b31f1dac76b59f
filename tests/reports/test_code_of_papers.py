"""What the released code of papers computes: each row of the chapter's table against that code's own arithmetic."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy, kl_div

from lsr_core import InputError, objective
from lsr_core.objectives import as_label_smoothing
from study import released_code

K = 100


def batch_mean(z, q, tau=1.0):
    return kl_div((z / tau).log_softmax(-1), q, reduction="batchmean")


def virtual(z, y, tau):
    made = torch.full_like(z, 0.01 / (z.shape[-1] - 1)).scatter(1, y[:, None], 0.99)
    return (made / tau).softmax(-1)


def softened(z, v, tau):
    return batch_mean(z, (v / tau).softmax(-1), tau)


def offset(z, y, v, a, tau):
    q = (v / tau).softmax(-1)
    return (1 - a) * cross_entropy(z, y) - a * (q * (z.softmax(-1) + 1e-8).log()).sum(-1).mean()


def steps_of(source, z, y, v, a, tau):
    """A code base's steps, from student logits z, labels y, teacher logits v, α and τ."""
    hard = cross_entropy(z, y)
    return {
        "Hinton 2015": (1 - a) * hard + a * tau**2 * softened(z, v, tau),
        "Yuan 2020, code": (1 - a) * hard + a * tau**2 * softened(z, v, tau) / K,
        "Yuan 2020, Tf-KD_reg, code": (1 - a) * hard + a * batch_mean(z, virtual(z, y, tau)) / K,
        "Liang 2022, KD, code": hard + (1 - a) * hard + a * tau**2 * softened(z, v, tau),
        "Liang 2022, Tf-KD_reg, code": hard + a * batch_mean(z, virtual(z, y, tau)) / K,
        "Zhang & Sabuncu 2020, code": offset(z, y, v, a, tau),
        "Chandrasegaran 2022, code": tau**2 * softened(z, v, tau),
        "Kim 2021, code": (1 - a) * hard + a * cross_entropy(z, v.softmax(-1)),
    }[source]


CODED = ["Hinton 2015", *(row.source for row in released_code.RELEASED_LOSSES if row.source.endswith("code"))]


def drawn(generator, spread=3.0, classes=K):
    z, v = (spread * torch.randn(64, classes, generator=generator, dtype=torch.float64) for _ in range(2))
    return z.requires_grad_(), torch.randint(classes, (64,), generator=generator), v


def gradient(loss, logits):
    return torch.autograd.grad(loss, logits, retain_graph=True)[0]


def apart(first, second):
    return ((first - second).norm() / second.norm()).item()


# "Your table says that our KD divides by the number of classes and weighs the labels by 1 − α; it does neither."
@pytest.mark.parametrize("source", CODED)
def test_a_row_has_the_gradient_of_its_code(source, generator):
    z, y, v = drawn(generator)
    (loss,) = (row for row in released_code.RELEASED_LOSSES if row.source == source)
    for alpha, tau in ((0.9, 4.0), (0.3, 20.0)):
        ours = gradient(loss.at(alpha, tau)(z, y, v).total, z)
        torch.testing.assert_close(ours, gradient(steps_of(source, z, y, v, alpha, tau), z), rtol=1e-9, atol=1e-14)


# "Self-distillation by your formula and by the authors' code give other gradients as soon as the logits are large."
def test_the_constant_inside_the_logarithm_is_offered_and_its_effect_is_large(generator):
    z, y, v = drawn(generator, spread=8.0)
    coded = released_code.SelfDistillationOffset()(z, y, v)
    exact = objective("self-distillation-released")(z, y, v)
    torch.testing.assert_close(gradient(coded.total, z), gradient(offset(z, y, v, 0.4, 4.0), z))
    assert apart(gradient(coded.total, z), gradient(exact.total, z)) > 0.1
    assert coded.hard == exact.hard
    assert released_code.offset_difference(8.0, K) > 0.1 > 0.01 > released_code.offset_difference(3.0, K) > 1e-3


# The same in Beta smoothing and in label smoothing: their targets go through the same logarithm.
def test_any_soft_label_can_be_put_through_it(generator):
    z, y, _ = drawn(generator)
    q = torch.full_like(z, 0.3 / (K - 1)).scatter(1, y[:, None], 0.7)
    expected = -(q * (z.softmax(-1) + 1e-8).log()).sum(-1)
    torch.testing.assert_close(released_code.offset_cross_entropy(q, z), expected)
    half = released_code.offset_cross_entropy(q.half(), z.half())  # where 1e-8 would be 0
    assert half.dtype == torch.float32
    sure = torch.tensor([[40.0, 0.0]]).half()
    assert released_code.offset_cross_entropy(torch.tensor([[0.0, 1.0]]).half(), sure).item() == pytest.approx(
        8 * math.log(10)
    )


# It has no closed form, so a stack of runs would leave it out silently.
def test_it_is_no_method_of_a_run():
    with pytest.raises(InputError, match="teacher_logits is None"):
        released_code.SelfDistillationOffset()(torch.zeros(2, 3), torch.tensor([0, 1]))
    assert not released_code.SelfDistillationOffset.takes_teacher  # so a Run refuses it


# "'Params' object has no attribute 'multiplier'": three files of Tf-KD_reg hold one that nothing reads.
@pytest.mark.parametrize(("student", "alpha"), [("DenseNet121", 0.1), ("ResNeXt29, ResNeXt101", 0.5)])
def test_a_file_without_multiplier_is_read_both_ways(student, alpha, generator):
    z, y, _ = drawn(generator)
    (file,) = (c for c in released_code.CONFIGURATIONS if c.student == student and c.mode == "Tf-KD_reg")
    soft = alpha * batch_mean(z, virtual(z, y, 40.0))
    hard = (1 - alpha) * cross_entropy(z, y)
    readings = file.readings(K)
    assert list(readings) == ["missing: 1", "missing: K (batch mean)"]
    for term, divisor in zip(readings.values(), (K, 1), strict=True):
        torch.testing.assert_close(gradient(term(z, y).total, z), gradient(hard + soft / divisor, z))
    table = released_code.configurations_table(K)
    rows = table.loc[[(student, "Tf-KD_reg")]]
    assert list(rows["s"]) == pytest.approx([alpha / K, alpha])
    assert list(rows["multiplier"]) == list(readings)


# Two files of Tf-KD_self lack it as well, and hold nothing instead.
def test_only_these_files_have_two_readings():
    counts = {c.student + c.mode: len(c.readings(K)) for c in released_code.CONFIGURATIONS}
    assert sum(counts.values()) == len(released_code.CONFIGURATIONS) + 2


# "The default multiplier of 100 makes label smoothing of .52 on ten classes."
def test_the_defaults_of_the_released_regulariser_belong_to_a_hundred_classes():
    term = objective("tf-kd-reg-released", multiplier=100.0)
    assert as_label_smoothing(term, 100) == pytest.approx((0.1, 1.0), abs=1e-3)
    assert as_label_smoothing(term, 10) == pytest.approx((0.524, 1.9), abs=1e-3)
