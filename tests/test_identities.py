import pytest
import torch

from study.identities import IDENTITIES, Identity, compare


@pytest.mark.parametrize("identity", IDENTITIES, ids=lambda identity: identity.id)
def test_every_identity_holds(identity):
    assert identity.holds(identity.error())


def test_losses_that_differ_by_a_constant_are_one():
    logits = torch.randn(8, 10, dtype=torch.float64, requires_grad=True)
    assert compare(logits.exp().sum(-1) + 3, logits.exp().sum(-1), logits) < 1e-14


def test_losses_that_differ_do_not_compare():
    logits = torch.randn(8, 10, dtype=torch.float64, requires_grad=True)
    assert compare(2 * logits.exp().sum(-1), logits.exp().sum(-1), logits) > 0.5
    same_gradient = logits.sum(-1), logits.sum(-1) + torch.arange(8)
    assert compare(*same_gradient, logits) > 0.1


def test_a_difference_holds_where_it_is_seen():
    differs = Identity("X", "nobody", "a is not b", "none", lambda: 0.5, 0.01, differ=True)
    assert differs.holds(0.5)
    assert not differs.holds(1e-12)
    assert differs.effect(0.5) == "relative distance 0.5"
