import inspect
import math

import pytest
import torch
from formulas import FORMULAS, formula, log_p
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import one_hot

import lsr_core
from lsr_core import METHODS, InputError, objective
from lsr_core.metrics import class_means
from lsr_core.objectives import ALIASES, as_label_smoothing, describe, ladder

K = 10
MASKABLE = {
    *("cross-entropy", "kd", "kd-unscaled", "kd-weighted", "soft-only", "self-distillation"),
    *("self-distillation-released", "ladder-teacher", "mrkd", "mrkd-fcn", "mrkd-fcn-ka", "ps-kd"),
}  # whose loss with masked classes is that of the others alone
RANDOM = {"beta-smoothing", "beta-smoothing-released", "beta-smoothing-shuffled"}  # have draws
ORDERED = {*RANDOM, "ladder-permuted"}  # and an order of their own: no formula of one line
SHIFTED = sorted(set(METHODS) - RANDOM)


@pytest.fixture
def batch(generator):
    logits = torch.randn(3, 25, K, generator=generator, dtype=torch.float64) * 3
    return logits.requires_grad_(), torch.randint(K, (3, 25), generator=generator)


@pytest.fixture
def teacher(generator):
    return 3 * torch.randn(3, 25, K, generator=generator, dtype=torch.float64)


def called(method, logits, labels, teacher, **constants):
    """A method's loss with everything that it may need."""
    return objective(method, **constants)(logits, labels, teacher, torch.arange(labels.shape[-1]))


def value_and_gradient(loss, logits):
    return loss.total.detach(), torch.autograd.grad(loss.total.sum(), logits)[0]


def assert_same(first, second, batch):
    for a, b in zip(*(value_and_gradient(o(*batch), batch[0]) for o in (first, second)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)


def assert_same_gradient(first, second, batch):
    gradients = [value_and_gradient(o(*batch), batch[0])[1] for o in (first, second)]
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-13)


def test_every_method_has_a_formula_or_a_test_of_its_own():
    assert set(FORMULAS) | ORDERED == set(METHODS)


@pytest.mark.parametrize("method", sorted(FORMULAS))
def test_value_and_gradient_are_the_formulas(method, batch, teacher):
    logits, labels = batch
    loss = called(method, logits, labels, teacher)
    expected = formula(objective(method), logits, labels, teacher)
    torch.testing.assert_close(loss.total, expected, rtol=1e-10, atol=1e-12)
    gradients = [torch.autograd.grad(total.sum(), logits)[0] for total in (loss.total, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-12)


@st.composite
def hard_cases(draw):
    """Float32 logits, labels, a teacher in any precision, and τ: with ties, masked classes, and up to 1,000 classes."""
    classes, size = draw(st.sampled_from([3, 10, 1000])), draw(st.integers(1, 4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    values = [draw(st.floats(0.1, 10)) * torch.randn(size, classes, generator=generator) for _ in range(2)]
    if draw(st.booleans()):
        values = [v.round() for v in values]  # ties
    labels = torch.randint(1, classes, (size,), generator=generator)
    masked = torch.arange(classes) < draw(st.sampled_from([0, 0, 1]))
    dtype = draw(st.sampled_from([torch.float32, torch.float16, torch.bfloat16]))
    return values[0], labels, values[1].to(dtype), masked, 10.0 ** draw(st.floats(-3, 6))


def first_and_second(total, logits, direction):
    """A loss, its gradient, and its Hessian along a direction, in float64."""
    (gradient,) = torch.autograd.grad(total, logits, create_graph=True)
    (second,) = torch.autograd.grad((gradient * direction.to(gradient)).sum(), logits)
    return total.detach().double(), gradient.detach().double(), second.double()


@settings(max_examples=100, deadline=None)
@given(hard_cases(), st.sampled_from(sorted(FORMULAS)))
def test_hard_cases_are_the_formulas_in_float64(case, method):
    logits, labels, teacher, masked, tau = case
    masked &= method not in ("kd-released", "confidence-penalty", "mrkd-tc")  # have a loss too, with all K, or at times
    constants = {"temperature": tau} if hasattr(METHODS[method], "temperature") else {}
    if method == "lsrkd-tc-share":
        constants["share"] = 0.5
    z, v = (values.masked_fill(masked, -math.inf) for values in (logits, teacher))
    z.requires_grad_()
    loss = objective(method, **constants)
    index = torch.arange(len(labels))
    if masked.any() and method not in MASKABLE:
        with pytest.raises(InputError, match=r"masked|infinite values"):
            loss(z, labels, v, index)
        return
    direction = torch.sin(torch.arange(z.numel())).view_as(z)
    ours = first_and_second(loss(z, labels, v, index).total, z, direction)
    exact = z.detach().double().requires_grad_()
    kept = exact[:, ~masked]  # with the masked classes left out
    expected = first_and_second(
        formula(loss, kept, labels - int(masked.sum()), v.double()[:, ~masked]), exact, direction
    )
    hard_weight, soft_weight = loss.weights(logits.shape[-1])
    tau = loss.student_temperature
    sizes = [min(1, 100 / tau**2), min(1, 10 / tau) / tau, 1 / tau**2]  # of the divergence and its derivatives
    for found, right, size in zip(ours, expected, sizes, strict=True):
        noise = 1e-6 * hard_weight + soft_weight * (1e-6 * size + 1e-14)  # of single precision, and of the formula
        assert (found - right).norm() <= 1e-5 * right.norm() + noise


@pytest.mark.parametrize("method", METHODS)
def test_parts_are_detached_and_sum_to_the_total(method, batch, teacher):
    loss = called(method, *batch, teacher)
    assert loss.total.shape == (3,)
    assert loss.total.requires_grad
    assert not loss.hard.requires_grad
    assert not loss.soft.requires_grad
    torch.testing.assert_close(loss.hard + loss.soft, loss.total.detach())


@pytest.mark.parametrize("method", METHODS)
def test_leading_axes_are_runs_side_by_side(method, batch, teacher):
    logits, labels = batch
    together = called(method, logits, labels, teacher)
    if method in RANDOM:
        return
    for run in range(3):
        alone = called(method, logits[run], labels[run], teacher[run])
        torch.testing.assert_close(together.total[run], alone.total, rtol=1e-12, atol=1e-14)


# Precision.


def errors(method, logits, labels, teacher, **constants):
    """Relative errors of float32's value and gradient."""
    values, gradients = [], []
    for dtype in (torch.float32, torch.float64):
        z = logits.to(dtype).requires_grad_()
        loss = called(method, z, labels, teacher.to(dtype), **constants)
        values.append(loss.total.item())
        gradients.append(torch.autograd.grad(loss.total, z)[0].double())
    assert math.isfinite(values[0])
    assert gradients[0].isfinite().all()
    difference = (gradients[0] - gradients[1]).norm() / gradients[1].norm().clamp_min(1e-30)
    return abs(values[0] - values[1]) / max(abs(values[1]), 1e-30), difference.item()


def drawn(classes, spread, generator, rows=128):
    logits, teacher = (spread * torch.randn(rows, classes, generator=generator) for _ in range(2))
    return logits, torch.randint(classes, (rows,), generator=generator), teacher


def rounding(classes):
    """Relative error of K exponentials of arguments up to some tens, each rounded, and of their sum by halves."""
    return (64 + 8 * math.log2(classes)) * torch.finfo(torch.float32).eps


@pytest.mark.parametrize(
    ("method", "classes"),
    [
        (method, classes)
        for method in sorted(set(METHODS) - RANDOM)
        for classes in (2, 10, 100, 1000, 10_000)
        if classes <= 1000 or not method.startswith("mrkd-fcn")  # whose layer would have a hundred million weights
    ],
)
def test_float32_is_float64_to_rounding(method, classes, generator):
    logits, labels, teacher = drawn(classes, 3.0, generator, rows=32 if classes == 10_000 else 128)
    constants = {"share": 0.6} if method == "lsrkd-tc-share" and classes == 2 else {}
    value, gradient = errors(method, logits, labels, teacher, **constants)
    assert value <= rounding(classes)
    assert gradient <= rounding(classes)


SOFTENED = ["lsrkd", "lsrkd-tc", "tf-kd-reg", "tf-kd-reg-logits", "kd", "kd-unscaled", "self-distillation", "mrkd"]


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0, 100.0, 1000.0])
@pytest.mark.parametrize("alpha", [0.1, 1.0])
@pytest.mark.parametrize("method", SOFTENED)
def test_float32_keeps_its_digits_at_every_temperature(method, alpha, temperature, generator):
    for classes, rows in ((10, 128), (100, 128), (10_000, 32)):
        batch = drawn(classes, 3.0, generator, rows)
        value, gradient = errors(method, *batch, alpha=alpha, temperature=temperature)
        assert value <= (1e-5 if temperature <= 20 else 1e-4)
        assert gradient <= 1e-5


@pytest.mark.parametrize("method", sorted(set(METHODS) - RANDOM))
def test_extreme_logits_stay_finite(method, generator):
    for classes in (10, 1000):
        logits, labels, teacher = drawn(classes, 3.0, generator)
        extreme = torch.where(torch.rand(logits.shape, generator=generator) < 0.1, logits.sign() * 1e4, logits)
        assert errors(method, extreme, labels, teacher)[1] <= 1e-3
        assert errors(method, logits + 1e3, labels, teacher + 1e3)[1] <= 1e-3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("method", sorted(set(METHODS) - RANDOM))
def test_half_precision_logits_are_computed_in_single(method, dtype, generator):
    logits, labels, teacher = drawn(100, 3.0, generator)
    half, half_teacher = logits.to(dtype), teacher.to(dtype)
    loss = called(method, half, labels, half_teacher)
    assert loss.total.dtype == torch.float32
    exact = called(method, half.double(), labels, half_teacher.double()).total.item()
    assert loss.total.item() == pytest.approx(exact, rel=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_under_autocast(method, generator):
    logits, labels, teacher = drawn(100, 1.0, generator)
    layer = nn.Linear(100, 100)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = layer(logits)
        assert outputs.dtype == torch.bfloat16
        loss = called(method, outputs, labels, teacher)
    loss.total.backward()
    assert loss.total.dtype == torch.float32
    assert layer.weight.grad.isfinite().all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")
def test_on_a_gpu(generator):
    logits, labels, teacher = drawn(100, 3.0, generator)
    for method in METHODS:
        on_gpu = objective(method)(logits.cuda(), labels.cuda(), teacher.cuda(), torch.arange(128).cuda()).total
        assert on_gpu.is_cuda
        assert on_gpu.item() == pytest.approx(called(method, logits, labels, teacher).total.item(), rel=1e-4)


# Properties.


@st.composite
def batches(draw):
    classes, size, seed = draw(st.integers(3, 12)), draw(st.integers(1, 6)), draw(st.integers(0, 2**31))
    generator = torch.Generator().manual_seed(seed)
    logits, teacher = (
        draw(st.floats(0.01, 30)) * torch.randn(size, classes, generator=generator, dtype=torch.float64)
        for _ in range(2)
    )
    return logits, torch.randint(classes, (size,), generator=generator), teacher, generator


@settings(max_examples=40, deadline=None)
@given(batches(), st.floats(-100, 100), st.sampled_from(SHIFTED))
def test_a_shift_of_the_logits_changes_nothing(batch, shift, method):
    logits, labels, teacher, _ = batch
    constants = {"share": 0.5} if method == "lsrkd-tc-share" else {}
    plain = called(method, logits, labels, teacher, **constants).total
    shifted = called(method, logits + shift, labels, teacher - shift, **constants).total
    torch.testing.assert_close(shifted, plain, rtol=1e-7, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(batches(), st.sampled_from(sorted(set(SHIFTED) - {"ladder-permuted"})))
def test_a_permutation_of_the_classes_changes_nothing(batch, method):
    logits, labels, teacher, generator = batch
    constants = {"share": 0.5} if method == "lsrkd-tc-share" else {}
    order = torch.randperm(logits.shape[-1], generator=generator)
    permuted = called(method, logits[:, order], order.argsort()[labels], teacher[:, order], **constants).total
    torch.testing.assert_close(
        permuted, called(method, logits, labels, teacher, **constants).total, rtol=1e-9, atol=1e-9
    )


@settings(max_examples=40, deadline=None)
@given(batches(), st.sampled_from(SHIFTED))
def test_the_order_of_the_batch_changes_nothing(batch, method):
    logits, labels, teacher, generator = batch
    constants = {"share": 0.5} if method == "lsrkd-tc-share" else {}
    order = torch.randperm(len(labels), generator=generator)
    plain = called(method, logits, labels, teacher, **constants).total
    mixed = objective(method, **constants)(logits[order], labels[order], teacher[order], order).total
    torch.testing.assert_close(mixed, plain, rtol=1e-9, atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(batches(), st.sampled_from(sorted(METHODS)))
def test_no_divergence_is_negative(batch, method):
    logits, labels, teacher, _ = batch
    constants = {"share": 0.5} if method == "lsrkd-tc-share" else {}
    assert called(method, logits, labels, teacher, **constants).soft >= -1e-12


@settings(max_examples=40, deadline=None)
@given(batches(), st.sampled_from(sorted(name for name in METHODS if "alpha" in describe(objective(name)))))
def test_without_alpha_it_is_cross_entropy(batch, method):
    logits, labels, teacher, _ = batch
    constants = {"share": 0.5} if method == "lsrkd-tc-share" else {}
    none = called(method, logits, labels, teacher, alpha=0, **constants).total
    torch.testing.assert_close(none, objective("cross-entropy")(logits, labels).total, rtol=1e-12, atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(batches())
def test_a_teacher_who_is_the_student_teaches_nothing(batch):
    logits, labels, _, _ = batch
    for method in ("kd", "soft-only", "self-distillation", "ladder-teacher", "mrkd"):
        assert called(method, logits, labels, logits).soft.item() == pytest.approx(0, abs=1e-12)


@settings(max_examples=20, deadline=None)
@given(batches())
def test_a_very_soft_teacher_matches_logits(batch):
    logits, labels, teacher, _ = batch
    difference = (logits - teacher) - (logits - teacher).mean(-1, keepdim=True)
    soft = called("kd", logits, labels, teacher, alpha=1, temperature=1e5).soft
    torch.testing.assert_close(soft, difference.square().mean(-1).mean() / 2, rtol=1e-2, atol=1e-10)


# Identities between methods.


def test_lsrkd_at_temperature_one_is_lsr(batch):
    assert_same(objective("lsrkd", alpha=0.2, temperature=1), objective("lsr", epsilon=0.2), batch)


def test_correction_without_excess_is_lsrkd(batch):
    plain = objective("lsrkd", alpha=0.2, temperature=4)
    assert_same(objective("lsrkd-tc", alpha=0.2, temperature=4, gap=0), plain, batch)
    assert_same(objective("lsrkd-tc-share", alpha=0.2, temperature=4, share=0.1), plain, batch)


def test_correction_at_temperature_one_is_lsr_with_less_mass(batch):
    corrected = objective("lsrkd-tc-share", alpha=0.3, temperature=1, share=0.4)
    assert_same_gradient(corrected, objective("lsr", epsilon=0.3 * 0.6 * 10 / 9), batch)


def test_the_wrong_classes_convention_is_lsr_with_more_mass(batch):
    assert_same_gradient(objective("lsr-wrong-classes", epsilon=0.09), objective("lsr", epsilon=0.1), batch)


def test_no_smoothing_is_cross_entropy(batch):
    plain = objective("cross-entropy")
    for smoothed in (objective("lsr", epsilon=0), objective("lsrkd", alpha=0)):
        assert_same(smoothed, plain, batch)


def test_released_regularisation_is_label_smoothing_with_its_own_mass_and_scale(generator):
    logits, labels, _ = drawn(100, 3.0, generator)
    logits = logits.double().requires_grad_()
    cases = [
        ({"alpha": 0.1, "temperature": 20, "multiplier": 100}, 0.09995, 1.0),  # ResNet-18
        ({"alpha": 0.95, "temperature": 40, "multiplier": 1}, 0.160, 0.0595),  # MobileNetV2
    ]
    for constants, mass, size in cases:
        released = objective("tf-kd-reg-released", **constants)
        epsilon, scale = as_label_smoothing(released, 100)
        assert epsilon == pytest.approx(mass, abs=5e-4 if mass > 0.1 else 1e-5)
        assert scale == pytest.approx(size, abs=1e-12)
        gradient = torch.autograd.grad(released(logits, labels).total, logits)[0]
        smoothed = torch.autograd.grad(objective("lsr", epsilon=epsilon)(logits, labels).total, logits)[0]
        torch.testing.assert_close(gradient, scale * smoothed, rtol=1e-10, atol=1e-15)


def test_a_softened_student_is_no_label_smoothing():
    with pytest.raises(InputError, match=r"temperature is 4.0; only an unsoftened student \(1\) is label smoothing"):
        as_label_smoothing(objective("lsrkd"), 10)
    with pytest.raises(InputError, match="method 'kd' has no hand-made teacher"):
        as_label_smoothing(objective("kd"), 10)


def test_a_uniform_prior_is_label_smoothing(batch):
    prior = torch.full((K, K), 1 / K)
    for smoothing in (objective("prior-smoothing", alpha=0.2), objective("prior-smoothing", alpha=0.2, prior=prior)):
        assert_same(smoothing, objective("lsr", epsilon=0.2), batch)


def test_a_prior_is_mixed_into_the_labels(batch, generator):
    logits, labels = batch
    prior = torch.rand(K, K, generator=generator, dtype=torch.float64)
    prior /= prior.sum(-1, keepdim=True)
    smoothing = objective("prior-smoothing", alpha=0.5, prior=prior.tolist())
    assert hash(smoothing) == hash(objective("prior-smoothing", alpha=0.5, prior=prior))
    target = 0.5 * one_hot(labels, K) + 0.5 * prior[labels]
    expected = -(target * log_p(logits)).sum(-1).mean(-1)
    gradients = [torch.autograd.grad(v.sum(), logits)[0] for v in (smoothing(logits, labels).total, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-9)  # the rows are kept in single precision


def test_the_ladder_is_made_from_one_teacher(generator):
    teacher = 3 * torch.randn(200, K, generator=generator)
    labels = torch.randint(K, (200,), generator=generator)
    rungs = ladder(teacher, labels, alpha=0.7, temperature=2.0)
    assert [rung.name.removeprefix("ladder-") for rung in rungs] == [
        "uniform",
        "class-means",
        "confidence",
        "permuted",
        "teacher",
    ]
    q = (teacher.double() / 2).softmax(-1)
    assert rungs[0].share == pytest.approx(q[torch.arange(200), labels].mean().item())
    torch.testing.assert_close(torch.tensor(rungs[1].prior).double(), class_means(q, labels, K), rtol=1e-6, atol=1e-7)
    logits = torch.randn(200, K, generator=generator).requires_grad_()
    for rung in rungs:
        assert rung(logits, labels, teacher, torch.arange(200)).total.isfinite()
        assert rung.weights(K) == pytest.approx((0.3, 2.8))


def test_the_last_rung_is_the_teacher(batch, teacher):
    constants = {"alpha": 0.7, "temperature": 2.0}
    ours, kd = (called(name, *batch, teacher, **constants).total for name in ("ladder-teacher", "kd"))
    torch.testing.assert_close(ours, kd)


# Names, constants, bad input.


@pytest.mark.parametrize("alias", ALIASES)
def test_an_alias_is_the_same_method(alias):
    assert objective(alias) == objective(ALIASES[alias])


def test_whole_numbers_and_decimals_are_one_description():
    assert describe(objective("lsrkd", temperature=4)) == describe(objective("lsrkd", temperature=4.0))
    assert str(describe(objective("lsrkd", temperature=4))) == str(describe(objective("lsrkd", temperature=4.0)))
    assert describe(objective("mrkd"))["copies"] == 3


@pytest.mark.parametrize("method", METHODS)
def test_a_description_makes_the_same_objective(method):
    described = describe(objective(method))
    assert objective(described.pop("method"), **described) == objective(method)
    assert hash(objective(method)) == hash(objective(method))


@pytest.mark.parametrize(
    ("method", "constants", "message"),
    [
        ("lsrkt", {}, "unknown method 'lsrkt'; did you mean 'lsrkd' or"),
        ("zzz", {}, "unknown method 'zzz'; there are cross-entropy, lsr,"),
        ("lsr", {"alpha": 0.1}, "method 'lsr' has no constant 'alpha'; it takes epsilon"),
        ("mrkd", {"memory": None}, "method 'mrkd' has no constant 'memory'"),
        ("lsr", {"epsilon": 1.1}, "epsilon is 1.1; it must be a number from 0 to 1"),
        ("lsrkd", {"alpha": -0.1}, "alpha is -0.1"),
        ("lsrkd", {"temperature": 0}, "temperature is 0; it must be a finite number above 0"),
        ("kd", {"temperature": float("inf")}, "temperature is inf"),
        ("kd-weighted", {"soft_weight": -1}, "soft_weight is -1; it must be a finite number, 0 or above"),
        ("lsrkd-tc-share", {"share": 1.2}, "share is 1.2"),
        ("lsrkd-tc-share", {"share": 0}, "share is 0"),
        ("lsrkd-tc", {"gap": -2}, "gap is -2"),
        ("tf-kd-reg", {"correct": 1.5}, "correct is 1.5"),
        ("mrkd", {"copies": 0}, "copies is 0; it must be a whole number above 0"),
        ("mrkd", {"every": 2.5}, "every is 2.5; it must be a whole number above 0"),
        ("ps-kd", {"epochs": True}, "epochs is True"),
        ("prior-smoothing", {"prior": [[1.0, 0.0]]}, r"prior has shape \[1, 2\]; it must be \[K, K\]"),
        ("prior-smoothing", {"prior": [[0.5, 0.4], [0, 1]]}, "prior holds a row that is no distribution"),
    ],
)
def test_bad_constants_are_refused_in_one_sentence(method, constants, message):
    with pytest.raises(InputError, match=message) as caught:
        objective(method, **constants)
    assert "\n" not in str(caught.value)


Z, Y = torch.randn(4, 10), torch.tensor([0, 3, 9, 1])
BAD = float("nan") * Z


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((Z, torch.tensor([0, 3, 10, 1])), "labels hold 10; they must be 0 to 9"),
        ((Z, torch.tensor([0, -100, 2, 1])), "labels hold -100; they must be 0 to 9"),
        ((Z, Y.float()), r"labels are torch.float32 \[4\]; they must be int64 \[4\]"),
        ((Z, Y.int()), "labels are torch.int32"),
        ((Z, [0, 3, 9, 1]), r"labels are list; they must be int64 \[4\]"),
        ((Z, Y[:3]), r"labels have shape \[3\]; with logits \[4, 10\] it must be \[4\]"),
        ((Z.long(), Y), r"logits are torch.int64 \[4, 10\]; they must be floating-point"),
        ((Z[0], Y), "logits are torch.float32"),
        ((Z[:, :1], Y * 0), "logits have shape .4, 1.; they need 1 example and 2 classes or more"),
        ((Z[:0], Y[:0]), r"logits have shape \[0, 10\]"),
        ((BAD, Y, Z), "logits hold NaN; they must be finite numbers"),
        ((Z / 0, Y, Z), "logits hold infinite values; they must be finite numbers"),
        ((Z, Y, Z[:, :9]), "teacher_logits have 9 classes; they must have the logits' 10"),
        ((Z, Y, Z[:3]), r"teacher_logits have shape \[3, 10\]; it must be the logits' \[4, 10\]"),
        ((Z, Y, Z[None]), r"teacher_logits have shape \[1, 4, 10\]; it must be the logits' \[4, 10\]"),
        ((Z, Y, Z.tolist()), "teacher_logits are list"),
        ((Z, Y, BAD), "teacher_logits hold NaN"),
        ((Z, Y), "teacher_logits is None; method 'kd' needs them"),
        ((Z, Y, Z, Y[:2]), r"index have shape \[2\]; with logits \[4, 10\] it must be \[4\]"),
        ((Z, Y, Z, -Y), "index holds -9; the examples' numbers start at 0"),
    ],
)
def test_bad_batches_are_refused_in_one_sentence(arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        objective("kd")(*arguments)
    assert "\n" not in str(caught.value)


def test_what_a_method_needs_is_named():
    with pytest.raises(InputError, match="index is None; method 'ps-kd' needs the examples' numbers"):
        objective("ps-kd")(Z, Y)
    with pytest.raises(InputError, match=r"teacher_logits is None; .*pass objective.teacher_logits\(model, inputs\)"):
        objective("beta-smoothing")(Z, Y)
    with pytest.raises(InputError, match="prior has 2 classes; it must have the logits' 10"):
        objective("prior-smoothing", prior=[[0.5, 0.5], [0.5, 0.5]])(Z, Y)
    with pytest.raises(InputError, match="method 'lsr' remembers nothing"):
        objective("lsr").load_state_dict({"steps": 1})


def test_huge_but_finite_logits_are_no_error():
    assert objective("lsr")(Z * 1e30, Y).total.isfinite()


def test_everything_public_is_documented_and_annotated():
    for name in lsr_core.__all__:
        assert inspect.getdoc(getattr(lsr_core, name)), name
    for name, method in METHODS.items():
        assert inspect.getdoc(method), name
        assert method.__doc__ != method.__mro__[1].__doc__, f"{name} has no docstring of its own"
