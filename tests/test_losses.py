import math

import pytest
import torch
from torch.autograd import gradcheck
from torch.nn.functional import cross_entropy as torch_cross_entropy

from lsr_core import InputError, losses, objective

K = 10
TEMPERATURES = (1.0, 2.0, 4.0, 20.0, 1000.0)
SHARES = (0.0, 1 / K, 0.3, 0.9, 1.0)


@pytest.fixture
def batch(generator):
    logits = 3 * torch.randn(4, 25, K, generator=generator, dtype=torch.float64)
    return logits.requires_grad_(), torch.randint(K, (4, 25), generator=generator)


def textbook(q, logits, temperature):
    """The divergence as it is defined, for autograd."""
    return (torch.special.xlogy(q, q) - q * (logits / temperature).log_softmax(-1)).sum(-1)


def gradient_of(logits, labels, offsets, *, hard_weight, soft_weight, temperature=1.0):
    """The closed form that stacks of runs train by."""
    weights = hard_weight, soft_weight / temperature
    targets = losses.gradient_targets(labels, offsets, *weights)
    return losses.gradient_from_targets(logits, targets, *weights, temperature)


def by_definition(logits, labels, hard_weight, soft_weight, temperature, share):
    teacher = torch.full_like(logits, (1 - share) / (K - 1)).scatter(-1, labels[..., None], share)
    hard = hard_weight * torch_cross_entropy(logits.mT, labels, reduction="none").mean(-1)
    soft = soft_weight * textbook(teacher, logits, temperature).mean(-1)
    return losses.Loss(hard + soft, hard, soft)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("share", SHARES)
def test_closed_form_equals_the_definition_in_value_and_gradient(batch, temperature, share):
    logits, labels = batch
    weights = {"hard_weight": 0.7, "soft_weight": 0.3 * temperature**2, "temperature": temperature, "share": share}
    ours, expected = losses.smoothing_loss(logits, labels, **weights), by_definition(logits, labels, **weights)
    # The definition loses digits as τ² grows; ours does not.
    torch.testing.assert_close(ours, expected, rtol=1e-15 * temperature**2 + 1e-12, atol=0)
    gradients = [torch.autograd.grad(loss.total.sum(), logits)[0] for loss in (ours, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-12)
    offsets = weights.pop("share") - 1 / K  # of the right class; the rest share the opposite
    offsets = torch.full_like(logits, -offsets / (K - 1)).scatter(-1, labels[..., None], offsets)
    torch.testing.assert_close(gradient_of(logits.detach(), labels, offsets, **weights), gradients[0])


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_the_gradient_of_any_teacher_is_the_losses(batch, generator, temperature):
    logits, labels = batch
    scores = 3 * torch.randn(logits.shape, generator=generator, dtype=torch.float64)
    weights = {"hard_weight": 0.7, "soft_weight": 0.3 * temperature**2, "temperature": temperature}
    soft = losses.divergence(scores, logits, temperature)
    loss = losses.weighted(logits, labels, soft, weights["hard_weight"], weights["soft_weight"])
    gradient = gradient_of(logits.detach(), labels, scores.softmax(-1) - 1 / K, **weights)
    torch.testing.assert_close(gradient, torch.autograd.grad(loss.total.sum(), logits)[0], rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
def test_gradient_against_finite_differences(batch, temperature):
    logits, labels = batch[0][0, :3].detach().requires_grad_(), batch[1][0, :3]
    weights = {"hard_weight": 0.7, "soft_weight": 0.3 * temperature**2, "temperature": temperature, "share": 0.4}
    assert gradcheck(lambda z: losses.smoothing_loss(z, labels, **weights).total, logits)
    scores = -2 * logits.detach().clone()
    assert gradcheck(lambda z: losses.divergence(scores, z, temperature, temperature), logits)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("teacher_temperature", [1.0, 20.0])
def test_divergence_from_scores_equals_the_definition(batch, generator, temperature, teacher_temperature):
    logits, _ = batch
    scores = 3 * torch.randn(logits.shape, generator=generator, dtype=torch.float64)
    q = (scores / teacher_temperature).softmax(-1)
    ours = losses.divergence(scores, logits, temperature, teacher_temperature)
    expected = textbook(q, logits, temperature)
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-14)
    gradients = [torch.autograd.grad(value.sum(), logits)[0] for value in (ours, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-13)
    torch.testing.assert_close(losses.kl_divergence(q, logits, temperature), expected, rtol=1e-9, atol=1e-14)


def test_divergence_from_a_teacher_with_zeros_is_exact(batch):
    logits, labels = batch
    one_hot = torch.nn.functional.one_hot(labels, K).double()
    for q in (one_hot, (one_hot + one_hot.roll(1, -1)) / 2):
        ours, expected = losses.kl_divergence(q, logits), textbook(q, logits, 1.0)
        torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-14)
        gradients = [torch.autograd.grad(value.sum(), logits)[0] for value in (ours, expected)]
        torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("mask", [-1e9, -1e30, torch.finfo(torch.float32).min, torch.finfo(torch.bfloat16).min])
def test_a_large_negative_logit_masks_a_class_as_infinity_does(mask):
    labels = torch.tensor([0, 1])

    def value(masked):
        teacher = torch.tensor([[2.0, 0.0, masked, masked], [0.5, 1.0, masked, masked]])
        student = torch.tensor([[1.0, 0.0, masked, masked], [0.0, 3.0, masked, masked]], requires_grad=True)
        total = objective("kd", alpha=0.5, temperature=4)(student, labels, teacher).total
        return total.detach(), torch.autograd.grad(total, student)[0]

    torch.testing.assert_close(value(mask), value(-math.inf))


def test_divergence_between_sure_networks_that_disagree(batch):
    logits = (60 * batch[0]).detach().requires_grad_()
    scores = logits.detach().roll(1, -1)
    ours, expected = losses.divergence(scores, logits), textbook(scores.softmax(-1), logits, 1.0)
    torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-10)
    gradients = [torch.autograd.grad(value.sum(), logits)[0] for value in (ours, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-12)


def test_a_teacher_gets_no_gradient(batch):
    scores = torch.randn(4, 25, K, dtype=torch.float64, requires_grad=True)
    losses.divergence(scores, batch[0]).sum().backward()
    assert scores.grad is None
    assert batch[0].grad is not None


def test_reverse_divergence_is_what_is_missing_of_the_entropy(batch):
    logits = batch[0]
    entropy = torch.distributions.Categorical(logits=logits).entropy()
    torch.testing.assert_close(losses.reverse_divergence(logits), math.log(K) - entropy)


def test_without_label_drops_it_and_keeps_the_order():
    values, labels = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), torch.tensor([0, 2])
    assert losses.without_label(values, labels).tolist() == [[2.0, 3.0], [4.0, 5.0]]


@pytest.mark.parametrize("temperature", [1.0, 20.0, 1e3, 1e5])
@pytest.mark.parametrize("gap", [0.0, 6.0])
def test_float32_keeps_its_digits_as_temperature_grows(batch, temperature, gap):
    logits, labels = batch
    share = losses.corrected_share(gap, temperature, K)
    weights = {"hard_weight": 0.9, "soft_weight": 0.1 * temperature**2, "temperature": temperature, "share": share}
    single = logits.detach().float().requires_grad_()
    loss32, loss64 = losses.smoothing_loss(single, labels, **weights), losses.smoothing_loss(logits, labels, **weights)
    torch.testing.assert_close(loss32.soft.double(), loss64.soft, rtol=1e-7 * temperature + 2e-6, atol=0)
    (gradient32,) = torch.autograd.grad(loss32.total.sum(), single)
    (gradient64,) = torch.autograd.grad(loss64.total.sum(), logits)
    assert (gradient32 - gradient64).norm() / gradient64.norm() < 1e-6


def test_a_loss_can_be_scaled_and_differentiated_twice_over(batch):
    logits, labels = batch
    total = losses.smoothing_loss(logits, labels, hard_weight=0.9, soft_weight=0.1, share=1 / K).total
    (plain,) = torch.autograd.grad(total.sum(), logits, retain_graph=True)
    (scaled,) = torch.autograd.grad(2.5 * total.sum(), logits, retain_graph=True)
    (again,) = torch.autograd.grad(total.sum(), logits)
    torch.testing.assert_close(scaled, 2.5 * plain)
    assert torch.equal(again, plain)
    leaf = logits.detach().clone().requires_grad_()
    total = losses.smoothing_loss(leaf, labels, hard_weight=0.9, soft_weight=0.1, share=1 / K).total.sum()
    for _ in range(3):
        total.backward(retain_graph=True)
    torch.testing.assert_close(leaf.grad, 3 * plain)


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 1.0])
def test_label_smoothing_is_torchs(batch, epsilon):
    logits, labels = batch
    expected = torch_cross_entropy(logits.flatten(0, 1), labels.flatten(), label_smoothing=epsilon)
    targets = losses.smoothed_labels(labels, K, epsilon, dtype=torch.float64)
    torch.testing.assert_close(losses.cross_entropy(targets, logits).mean(), expected)
    ours = losses.smoothing_loss(logits, labels, hard_weight=1 - epsilon, soft_weight=epsilon, share=1 / K)
    torch.testing.assert_close(ours.total.mean() + epsilon * math.log(K), expected)  # the constant is ε·ln K


def test_the_two_conventions_differ_by_the_stated_factor(batch):
    labels = batch[1]
    wrong = losses.smoothed_labels(labels, K, 0.09, "K-1")
    torch.testing.assert_close(wrong, losses.smoothed_labels(labels, K, 0.1))
    assert torch.allclose(wrong.amin(-1), torch.tensor(0.09 / (K - 1)))
    assert torch.allclose(wrong.amax(-1), torch.tensor(1 - 0.09))


@pytest.mark.parametrize("epsilon", [-0.1, 1.5, float("nan"), "much", True])
def test_smoothing_mass_outside_the_unit_interval_is_refused(epsilon):
    with pytest.raises(InputError, match=r"epsilon is .*; it must be a number from 0 to 1"):
        losses.smoothed_labels(torch.tensor([0]), K, epsilon)


@pytest.mark.parametrize(
    ("constants", "message"),
    [
        ({"temperature": 0, "share": 0.1}, "temperature is 0; it must be a finite number above 0"),
        ({"temperature": -1.5, "share": 0.1}, "temperature is -1.5"),
        ({"share": 1.5}, "share is 1.5; it must be a number from 0 to 1"),
        ({"share": -0.1}, "share is -0.1"),
    ],
)
def test_a_temperature_or_share_that_cannot_be_is_refused(batch, constants, message):
    with pytest.raises(InputError, match=message):
        losses.smoothing_loss(*batch, hard_weight=0.9, soft_weight=0.1, **constants)
    with pytest.raises(InputError, match=message):
        losses.optimum_gap(hard_weight=0.9, soft_weight=0.1, classes=K, **constants)


def test_a_divergence_at_temperature_zero_is_refused(batch):
    with pytest.raises(InputError, match="temperature is 0"):
        losses.kl_divergence(batch[0].softmax(-1), batch[0], 0)
    with pytest.raises(InputError, match="teacher_temperature is -1"):
        losses.divergence(batch[0], batch[0], 1, -1)


@pytest.mark.parametrize("classes", [0, 1, 2.5, "ten"])
def test_fewer_than_two_classes_are_refused(classes):
    with pytest.raises(InputError, match=r"classes is .*; it must be a whole number, 2 or above"):
        losses.smoothed_labels(torch.tensor([0]), classes, 0.1)


def test_very_soft_divergence_is_half_the_logit_variance(batch):
    logits, labels = batch
    tau = 1e4
    soft = losses.smoothing_loss(
        logits, labels, hard_weight=0.0, soft_weight=tau**2, temperature=tau, share=1 / K
    ).total
    torch.testing.assert_close(soft, logits.var(-1, correction=0).mean(-1) / 2, rtol=1e-3, atol=0)


def test_optimum_gap_of_the_papers_table():
    gaps = {
        scaled: [
            losses.optimum_gap(
                hard_weight=0.9,
                soft_weight=0.1 * (tau**2 if scaled else 1),
                temperature=tau,
                share=1 / K,
                classes=K,
            )
            for tau in (1, 2, 4, 8, 20)
        ]
        for scaled in (True, False)
    }
    assert gaps[True] == pytest.approx([4.51, 4.49, 4.73, 4.91, 5.03], abs=0.005)
    assert gaps[False] == pytest.approx([4.51, 5.65, 7.01, 8.43, 10.26], abs=0.005)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_optimum_gap_is_where_the_gradient_vanishes(temperature):
    weights = {"hard_weight": 0.8, "soft_weight": 0.2 * temperature**2, "temperature": temperature}
    gap = losses.optimum_gap(**weights, share=0.3, classes=K)
    logits = torch.zeros(1, K, dtype=torch.float64)
    logits[0, 3] = gap
    offsets = torch.full((1, K), 0.7 / (K - 1) - 1 / K, dtype=torch.float64)
    offsets[0, 3] = 0.3 - 1 / K
    gradient = gradient_of(logits, torch.tensor([3]), offsets, **weights)
    assert gradient.abs().max() < 1e-12


def test_nothing_holds_the_gap_of_cross_entropy():
    assert losses.optimum_gap(hard_weight=1.0, soft_weight=0.0, share=0.1, classes=K) == math.inf
    assert losses.optimum_gap(hard_weight=0.5, soft_weight=0.5, share=1.0, classes=K) == math.inf


def test_optimum_gap_below_temperature_one():
    constants = {"hard_weight": 0.9, "soft_weight": 0.1 * 0.01**2, "temperature": 0.01, "share": 0.1, "classes": K}
    gap = losses.optimum_gap(**constants)
    wrong = (K - 1) / (math.exp(gap) + K - 1)
    assert 0.9 * wrong == pytest.approx(0.1 * 0.01 * (1 - 0.1), rel=1e-6)  # the softened student is sure


def test_a_teacher_that_denies_the_label_wants_no_finite_gap():
    assert losses.optimum_gap(hard_weight=0.0, soft_weight=1.0, share=0.0, classes=K) == -math.inf
    below = losses.optimum_gap(hard_weight=0.0, soft_weight=1.0, share=0.05, classes=K)
    assert below == pytest.approx(math.log(0.05 * 9 / 0.95))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_losses_of_single_and_half_precision_are_single(batch, dtype):
    logits, labels = batch[0].detach().to(dtype), batch[1]
    weights = {"hard_weight": 0.5, "soft_weight": 0.5}
    soft = losses.divergence(logits, logits, 4)
    assert losses.weighted(logits, labels, soft, **weights).total.dtype == torch.float32
    assert losses.smoothing_loss(logits, labels, **weights, temperature=4, share=1 / K).total.dtype == torch.float32
    assert losses.kl_divergence(logits.softmax(-1), logits, 4).dtype == torch.float32


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
def test_corrected_share_asks_for_its_gap(temperature):
    share = losses.corrected_share(6.0, temperature, K)
    assert temperature * math.log(share * (K - 1) / (1 - share)) == pytest.approx(6.0)
    assert losses.corrected_share(0.0, temperature, K) == pytest.approx(1 / K)


@pytest.mark.parametrize("temperatures", [[1.0, 2.0, 4.0, 8.0], [1.0, 4.0, 20.0, 100.0]])
def test_constants_of_the_gradient_may_be_one_a_run(batch, generator, temperatures):
    logits, labels = batch
    scores = 3 * torch.randn(logits.shape, generator=generator, dtype=torch.float64)
    own = {"hard_weight": [0.9, 0.5, 0.0, 1.0], "soft_weight": [0.1, 2.0, 1.6, 0.0], "temperature": temperatures}
    constants = {name: torch.tensor(values, dtype=torch.float64).view(4, 1, 1) for name, values in own.items()}
    together = gradient_of(logits.detach(), labels, scores.softmax(-1) - 1 / K, **constants)
    for run in range(4):
        tau = own["temperature"][run]
        soft = losses.divergence(scores[run], logits[run], tau)
        alone = losses.weighted(logits[run], labels[run], soft, own["hard_weight"][run], own["soft_weight"][run])
        expected = torch.autograd.grad(alone.total, logits)[0][run]
        torch.testing.assert_close(together[run], expected, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize(("hard_weight", "soft_weight"), [(0.0, 0.5), (0.5, 0.0), (0.0, 0.0)])
def test_a_part_without_weight_is_zero_even_where_it_is_infinite(hard_weight, soft_weight):
    logits = torch.tensor([[0.0, -math.inf]], requires_grad=True)
    infinite = (
        losses.divergence(torch.zeros(1, 2), torch.tensor([[0.0, -math.inf]])) if soft_weight == 0 else logits[:, 0]
    )
    labels = torch.tensor([1 if hard_weight == 0 else 0])
    loss = losses.weighted(logits, labels, infinite, hard_weight, soft_weight)
    assert loss.total.isfinite()
    assert torch.autograd.grad(loss.total, logits)[0].isfinite().all()


def test_the_chunks_of_many_rows_have_no_seam(generator):
    logits = torch.randn(90_000, K, generator=generator, dtype=torch.float64).requires_grad_()  # four chunks
    labels = torch.randint(K, (90_000,), generator=generator)
    weights = {"hard_weight": 0.9, "soft_weight": 1.6, "temperature": 4.0, "share": 0.3}
    results = []
    for rows in (90_000, 10_000):
        parts = zip(logits.split(rows), labels.split(rows), strict=True)
        total = torch.stack([losses.smoothing_loss(*part, **weights).total for part in parts]).mean()
        results.append((total.detach(), *torch.autograd.grad(total, logits)))
    torch.testing.assert_close(*results, rtol=1e-13, atol=1e-18)


def test_a_run_that_is_not_finite_leaves_its_mates_alone(batch):
    logits, labels = batch[0].detach().clone(), batch[1]
    weights = {"offsets": torch.zeros_like(logits), "hard_weight": 0.9, "soft_weight": 0.1}
    clean = gradient_of(logits, labels, **weights)
    logits[1] = float("nan")
    assert torch.equal(gradient_of(logits, labels, **weights)[[0, 2, 3]], clean[[0, 2, 3]])
