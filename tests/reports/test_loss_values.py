"""Values and derivatives of losses at inputs from public reports: each was once silently wrong somewhere."""

import math

import pytest
import torch
from formulas import FORMULAS, formula
from torch.autograd.functional import hessian
from torch.nn.functional import cross_entropy, kl_div, one_hot

from lsr_core import METHODS, InputError, losses, objective, teachers

NOT_DISTILLED = sorted(name for name, m in METHODS.items() if not m.needs_teacher and not m.several_teachers)


def called(method, logits, labels, teacher, **constants):
    return objective(method, **constants)(logits, labels, teacher, torch.arange(len(labels)))


def drawn(generator, rows=3, classes=4, dtype=torch.float64):
    logits, teacher = (2 * torch.randn(rows, classes, generator=generator, dtype=dtype) for _ in range(2))
    return logits, torch.randint(classes, (rows,), generator=generator), teacher


# A custom loss whose backward pass is not differentiable: Hessians are zero and gradient penalties too small.
@pytest.mark.parametrize("method", sorted(METHODS))
def test_second_derivatives_are_the_formulas(method, generator):
    logits, labels, teacher = drawn(generator, 1)
    ours = hessian(lambda z: called(method, z, labels, teacher).total, logits)
    if method in FORMULAS:
        expected = hessian(lambda z: formula(objective(method), z, labels, teacher), logits)
    else:  # the second derivative does not depend on the teacher
        own = objective(method)
        tau = own.student_temperature
        expected = hessian(
            lambda z: losses.weighted(z, labels, losses.divergence(teacher, z, tau), *own.weights(4)).total, logits
        )
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-12)
    assert ours.norm() > 1e-3


def test_a_gradient_penalty_and_a_third_derivative_are_exact(generator):
    logits, labels, teacher = drawn(generator)
    direction = torch.randn(logits.shape, generator=generator, dtype=torch.float64)
    for method in ("lsr", "lsrkd-tc", "kd"):
        found = []
        for loss in (
            lambda z, m=method: called(m, z, labels, teacher).total,
            lambda z, m=method: formula(objective(m), z, labels, teacher),
        ):
            z = logits.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(3 * loss(z), z, create_graph=True)
            penalty = gradient.square().sum()
            (second,) = torch.autograd.grad(penalty, z, create_graph=True)
            (third,) = torch.autograd.grad((second * direction).sum(), z)
            found.append((gradient, penalty, second, third))
        torch.testing.assert_close(*found, rtol=1e-9, atol=1e-12)


def test_second_derivatives_against_finite_differences(generator):
    logits, labels, teacher = drawn(generator, 1)
    logits.requires_grad_()
    constants = {"hard_weight": 0.7, "soft_weight": 1.2, "temperature": 4.0, "share": 0.4}
    assert torch.autograd.gradgradcheck(lambda z: losses.smoothing_loss(z, labels, **constants).total, logits)
    assert torch.autograd.gradgradcheck(lambda z: losses.divergence(teacher, z, 4.0, 4.0), logits)


# A softened loss overflows at a low temperature: e^(ln K/τ) is infinite in single precision.
@pytest.mark.parametrize("temperature", [1e-3, 0.02, 0.3])
@pytest.mark.parametrize("method", ["lsrkd", "lsrkd-tc", "tf-kd-reg", "kd", "soft-only"])
@pytest.mark.parametrize("classes", [10, 1000])
def test_low_temperatures_are_finite_and_exact(method, temperature, classes, generator):
    logits, labels, teacher = drawn(generator, 16, classes, torch.float32)
    logits[0] = 0
    logits[0, 0] = 9
    logits[1] = 1e-3 * torch.randn(classes, generator=generator)  # where a low temperature leaves something open
    logits.requires_grad_()
    total = called(method, logits, labels, teacher, temperature=temperature).total
    double = logits.detach().double().requires_grad_()
    expected = formula(objective(method, temperature=temperature), double, labels, teacher.double())
    assert total.item() == pytest.approx(expected.item(), rel=1e-5)
    gradients = torch.autograd.grad(total, logits)[0].double(), torch.autograd.grad(expected, double)[0]
    assert (gradients[0] - gradients[1]).norm() <= 1e-5 * gradients[1].norm()


# At a very high temperature the loss of a soft student turns into rounding noise.
@pytest.mark.parametrize("temperature", [1e4, 1e6, 1e9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_high_temperatures_keep_the_digits_of_the_value(temperature, dtype, generator):
    logits, labels, teacher = drawn(generator, 64, 10, dtype)
    centred = logits - logits.mean(-1, keepdim=True)
    for method, target in (
        ("lsrkd", torch.zeros_like(logits)),
        ("lsrkd-tc", 6 * one_hot(labels, 10).to(dtype)),
        ("kd", teacher),
    ):
        soft = called(method, logits, labels, teacher, alpha=1, temperature=temperature).soft
        limit = (centred - target + target.mean(-1, keepdim=True)).square().mean(-1).mean() / 2
        assert soft.item() == pytest.approx(limit.item(), rel=1e-5 + 10 / temperature)


@pytest.mark.parametrize("temperature", [1e-4, 1e-30, 1e10, 1e300])
def test_a_temperature_that_would_lose_digits_is_refused(temperature, generator):
    match = r"temperature is .*; losses keep their digits from 0.001 to 1e9"
    for method in ("lsrkd", "kd", "mrkd", "kd-weighted"):
        with pytest.raises(InputError, match=match):
            objective(method, temperature=temperature)
    logits, labels, teacher = drawn(generator)
    with pytest.raises(InputError, match=match):
        losses.divergence(teacher, logits, torch.tensor(temperature, dtype=torch.float64))
    with pytest.raises(InputError, match=match):
        losses.smoothing_loss(logits, labels, hard_weight=1, soft_weight=1, share=0.5, temperature=temperature)


def test_finite_logits_beyond_the_range_of_their_precision_are_no_silent_infinity():
    with pytest.raises(InputError, match=r"logits reach 3e\+38.* method 'lsr' is beyond the range of torch.float32"):
        objective("lsr")(torch.tensor([[3e38, -3e38]]), torch.tensor([0]))


# Softening a teacher in float16 overflows at 65504; rounding it in bfloat16 moves the loss by percents.
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("method", sorted({*FORMULAS} - {"mrkd-fcn", "ps-kd"}))
def test_half_precision_teachers_are_softened_in_single(method, dtype, generator):
    logits, labels, teacher = drawn(generator, 8, 10)
    teacher = teacher.to(dtype)
    softer = {"temperature": 3.3} if hasattr(METHODS[method], "temperature") else {}
    exact = formula(objective(method, **softer), logits, labels, teacher.double())
    assert called(method, logits, labels, teacher, **softer).total.item() == pytest.approx(exact.item(), rel=1e-6)


def test_a_large_float16_teacher_does_not_overflow():
    loss = objective("kd", alpha=1, temperature=0.5)
    total = loss(torch.zeros(1, 2), torch.tensor([0]), torch.tensor([[40000.0, 0.0]]).half()).total
    assert total.item() == pytest.approx(math.log(2) / 4)


def test_functions_of_half_precision_work_in_single(generator):
    logits, labels, teacher = drawn(generator, 8, 1000)
    for dtype in (torch.float16, torch.bfloat16):
        z, q = logits.to(dtype), teacher.softmax(-1).to(dtype)
        for found, exact in (
            (losses.cross_entropy(q, z), losses.cross_entropy(q.double(), z.double())),
            (losses.kl_divergence(q, z), losses.kl_divergence(q.double(), z.double())),
            (teachers.share_scores(q[:, 0], labels, 1000), teachers.share_scores(q[:, 0].double(), labels, 1000)),
            (teachers.similarity_prior(z @ z.mT, 30), teachers.similarity_prior((z @ z.mT).double(), 30)),
        ):
            torch.testing.assert_close(found, exact.float(), rtol=1e-5, atol=1e-5)
        targets = losses.gradient_targets(labels, torch.zeros(8, 1000), 0.9, 0.4)
        gradients = [losses.gradient_from_targets(v, targets, 0.9, 0.4, 4.0) for v in (z, z.float())]
        assert torch.equal(*gradients)


# Ranks computed in half precision merge: a thousand different votes have a few hundred ranks.
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.int64])
def test_half_precision_votes_keep_every_rank(dtype):
    votes = torch.arange(256 if dtype == torch.bfloat16 else 1000).to(dtype)
    ranks = teachers.zipf_scores(votes).exp().reciprocal()
    torch.testing.assert_close(ranks, torch.arange(len(votes), 0, -1).float())


def test_half_precision_counts_every_position():
    features = torch.ones(1, 2, 32, 32, dtype=torch.bfloat16)
    assert teachers.dense_votes(features, lambda x: x).max() == 1024


# A ranking of NaN is a ranking: a broken teacher is learned from without a word.
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("method", NOT_DISTILLED)
def test_a_teacher_that_is_not_finite_is_refused(method, value, generator):
    logits, labels, teacher = drawn(generator)
    teacher[1, 2] = value
    with pytest.raises(InputError, match=r"teacher_logits hold (NaN|infinite values)"):
        called(method, logits, labels, teacher)


# Masked classes: the loss of a legal label is NaN as soon as some other class has a logit of −∞.
MASKABLE = {
    *("cross-entropy", "confidence-penalty", "kd", "kd-unscaled", "kd-released", "kd-weighted", "soft-only"),
    *("self-distillation", "self-distillation-released", "ladder-teacher", "mrkd", "mrkd-fcn", "mrkd-fcn-ka", "ps-kd"),
}


@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_masked_class_has_a_loss_or_a_sentence(method, generator):
    logits, labels, teacher = drawn(generator, 8, 6)
    masked = labels[:, None] == (torch.arange(6) + 2) % 6  # another class in each row
    z, v = (values.masked_fill(masked, -math.inf).requires_grad_() for values in (logits, teacher))
    if method not in MASKABLE:
        with pytest.raises(InputError, match=r"logits (are −∞ \(masked\) for a class|hold)"):
            called(method, z, labels, v.detach())
        return
    loss = called(method, z, labels, v.detach())
    huge = [values.masked_fill(masked, -1e4).requires_grad_() for values in (logits, teacher)]
    expected = called(method, huge[0], labels, huge[1].detach())
    torch.testing.assert_close(loss.total, expected.total, rtol=1e-12, atol=1e-12)
    gradient = torch.autograd.grad(loss.total, z, create_graph=True)[0]
    torch.testing.assert_close(gradient, torch.autograd.grad(expected.total, huge[0])[0], rtol=1e-9, atol=1e-14)
    second = torch.autograd.grad(gradient.square().sum(), z)[0]
    assert second.isfinite().all()
    assert second.norm() > 0


def test_masked_losses_are_torchs(generator):
    logits, labels, teacher = drawn(generator, 8, 6)
    masked = labels[:, None] == (torch.arange(6) + 2) % 6
    z, v = (values.masked_fill(masked, -math.inf) for values in (logits, teacher))
    assert objective("cross-entropy")(z, labels).total.item() == pytest.approx(cross_entropy(z, labels).item())
    q, log_p = v.softmax(-1), z.log_softmax(-1)
    divergence = kl_div(log_p.masked_fill(masked, 0), q, reduction="batchmean").item()
    assert objective("soft-only")(z, labels, v).total.item() == pytest.approx(divergence)
    with pytest.raises(InputError, match="for a class that the labels or the teacher of method 'cross-entropy' want"):
        objective("cross-entropy")(z.scatter(-1, labels[:, None], -math.inf), labels)
    with pytest.raises(InputError, match="for a class that the labels or the teacher of method 'kd' want"):
        objective("kd")(z, labels, teacher)


# "Exact to rounding" was good to four parts in a thousand million in double precision.
@pytest.mark.parametrize("scale", [1e-3, 0.05, 0.0999, 0.11, 1.0])
def test_double_precision_divergence_is_exact(scale, generator):
    _, _, teacher = drawn(generator, 64, 10)
    logits = teacher + scale * (2 * torch.rand(teacher.shape, generator=generator, dtype=torch.float64) - 1)
    mpmath = pytest.importorskip("mpmath")
    with mpmath.workdps(50):
        for z, v in zip(logits[:8], teacher[:8], strict=True):
            sums = [mpmath.fsum(mpmath.exp(mpmath.mpf(x)) for x in row.tolist()) for row in (z, v)]
            exact = mpmath.log(sums[0] / sums[1]) + mpmath.fsum(
                mpmath.exp(mpmath.mpf(b)) / sums[1] * (mpmath.mpf(b) - mpmath.mpf(a))
                for a, b in zip(z.tolist(), v.tolist(), strict=True)
            )
            assert losses.divergence(v[None], z[None]).item() == pytest.approx(float(exact), rel=1e-13 / min(scale, 1))
