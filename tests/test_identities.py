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


def test_a_scaled_loss_has_torchs_own_steps_at_another_rate_and_decay():
    """The identity I6 writes the steps of SGD out: importing torch's optimizer would take every page seconds."""
    inputs, labels = torch.randn(32, 4, dtype=torch.float64), torch.randint(3, (32,))
    scale, ends = 0.05, []
    for factor, rate, decay in ((scale, 0.1, 5e-4), (1.0, 0.1 * scale, 5e-4 / scale)):
        weight = torch.ones(4, 3, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.SGD([weight], lr=rate, momentum=0.9, weight_decay=decay)
        for _ in range(5):
            optimizer.zero_grad()
            (factor * torch.nn.functional.cross_entropy(inputs @ weight, labels)).backward()
            optimizer.step()
        ends.append(weight.detach())
    torch.testing.assert_close(*ends, rtol=1e-12, atol=1e-12)
