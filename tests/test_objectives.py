import inspect

import pytest
import torch

import lsr_core
from lsr_core import METHODS, InputError, objective
from lsr_core.objectives import ALIASES, describe


@pytest.fixture
def batch(generator):
    logits = torch.randn(3, 25, 10, generator=generator, dtype=torch.float64) * 3
    return logits.requires_grad_(), torch.randint(10, (3, 25), generator=generator)


def value_and_gradient(loss, logits):
    return loss.total.detach(), torch.autograd.grad(loss.total.sum(), logits)[0]


def assert_same(first, second, batch):
    for a, b in zip(*(value_and_gradient(o(*batch), batch[0]) for o in (first, second)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)


def assert_same_gradient(first, second, batch):
    gradients = [value_and_gradient(o(*batch), batch[0])[1] for o in (first, second)]
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-13)


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


@pytest.mark.parametrize("method", METHODS)
def test_parts_are_detached_and_sum_to_the_total(method, batch):
    loss = objective(method)(*batch)
    assert loss.total.shape == (3,)
    assert loss.total.requires_grad
    assert not loss.hard.requires_grad
    assert not loss.soft.requires_grad
    torch.testing.assert_close(loss.hard + loss.soft, loss.total.detach())


@pytest.mark.parametrize("alias", ALIASES)
def test_an_alias_is_the_same_method(alias):
    assert objective(alias) == objective(ALIASES[alias])


def test_whole_numbers_and_decimals_are_one_description():
    assert describe(objective("lsrkd", temperature=4)) == describe(objective("lsrkd", temperature=4.0))
    assert str(describe(objective("lsrkd", temperature=4))) == str(describe(objective("lsrkd", temperature=4.0)))


@pytest.mark.parametrize(
    ("method", "constants", "message"),
    [
        ("lsrkt", {}, "unknown method 'lsrkt'; did you mean 'lsrkd'"),
        ("zzz", {}, "unknown method 'zzz'; there are cross-entropy, lsr,"),
        ("lsr", {"alpha": 0.1}, "method 'lsr' has no constant 'alpha'; it takes epsilon"),
        ("lsr", {"epsilon": 1.1}, "epsilon is 1.1; it must be a number from 0 to 1"),
        ("lsrkd", {"alpha": -0.1}, "alpha is -0.1"),
        ("lsrkd", {"temperature": 0}, "temperature is 0; it must be a finite number above 0"),
        ("lsrkd", {"temperature": float("inf")}, "temperature is inf"),
        ("lsrkd-tc-share", {"share": 1.2}, "share is 1.2; it must be at most 1"),
        ("lsrkd-tc", {"gap": -2}, "gap is -2"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(method, constants, message):
    with pytest.raises(InputError, match=message) as caught:
        objective(method, **constants)
    assert "\n" not in str(caught.value)


def test_everything_public_is_documented_and_annotated():
    for name in lsr_core.__all__:
        assert inspect.getdoc(getattr(lsr_core, name)), name
    for name, method in METHODS.items():
        assert inspect.getdoc(method), name
