import pytest
import torch
from torch import nn

from lsr_core.models import ImageNetwork, binary
from lsr_core.models.binary import BinaryConv2d, RPReLU, RSign, Sign, clipped, polynomial
from lsr_core.models.images import cost

CIFAR = (3, 32, 32)
X = torch.tensor([-2.0, -1.0, -0.75, -0.5, -0.1, 0.0, 0.1, 0.5, 0.75, 2.0], dtype=torch.float64)


def estimated(estimator):
    values = X.clone().requires_grad_()
    (Sign.apply(values, estimator) * torch.arange(10)).sum().backward()
    return values.grad / torch.arange(10)


def test_a_sign_is_a_sign_and_its_gradient_the_written_estimator():
    for estimator in (clipped, polynomial):
        assert Sign.apply(X, estimator).tolist() == [-1, -1, -1, -1, -1, 1, 1, 1, 1, 1]
    torch.testing.assert_close(estimated(clipped)[1:], (X.abs() <= 1).double()[1:], rtol=0, atol=0)
    torch.testing.assert_close(estimated(polynomial)[1:], (2 - 2 * X.abs()).clamp(min=0)[1:], rtol=0, atol=1e-15)


def test_a_binary_convolution_is_one_with_signs_and_clips_its_gradients(generator):
    layer = BinaryConv2d(3, 4, 3, padding=1, bias=False).double()
    nn.init.normal_(layer.weight, std=1, generator=generator)
    maps = torch.randn(2, 3, 5, 5, dtype=torch.float64, generator=generator)
    weights = layer.weight.detach().sign().requires_grad_()
    expected = torch.conv2d(maps, weights, padding=1)
    torch.testing.assert_close(layer(maps), expected, rtol=0, atol=0)
    expected.square().sum().backward()
    layer(maps).square().sum().backward()
    torch.testing.assert_close(layer.weight.grad, weights.grad * (layer.weight.abs() <= 1))


def test_shifts_are_learnt(generator):
    maps = torch.randn(2, 3, 4, 4, dtype=torch.float64, generator=generator)
    rsign, rprelu = RSign(3, binary=True).double(), RPReLU(3).double()
    for parameter in (*rsign.parameters(), *rprelu.parameters()):
        nn.init.normal_(parameter, generator=generator)
    torch.testing.assert_close(rsign(maps), (maps - rsign.shift).sign())
    before, after, slope = (p[:, 0, 0].tolist() for p in (rprelu.before, rprelu.after, rprelu.slope))
    for c in range(3):
        x = maps[:, c] - before[c]
        torch.testing.assert_close(rprelu(maps)[:, c], torch.where(x > 0, x, slope[c] * x) + after[c])
    assert torch.autograd.gradcheck(rprelu, maps.requires_grad_())


def test_shifts_begin_at_nothing_and_slopes_at_a_quarter(generator):
    network = ImageNetwork("binary_resnet8", width=4).build(CIFAR, 10, generator)
    own = [layer for layer in network.modules() if isinstance(layer, (RSign, RPReLU))]
    assert len(own) == 12
    for name, value in (pair for layer in own for pair in layer.named_parameters()):
        assert value.unique().tolist() == [0.25 if name == "slope" else 0.0]


def test_everything_between_the_real_layers_is_plus_or_minus_one(generator):
    network = ImageNetwork("binary_resnet8", width=4).build(CIFAR, 10, generator).eval()
    seen = []

    def look(layer, inputs, _):
        seen.append(layer)
        assert set(inputs[0].unique().tolist()) == {-1.0, 1.0}
        assert set(Sign.apply(layer.weight, clipped).unique().tolist()) == {-1.0, 1.0}

    for layer in network.modules():
        if isinstance(layer, BinaryConv2d):
            layer.register_forward_hook(look)
    network(torch.randn(2, *CIFAR, generator=generator))
    assert len(seen) == 6
    real = [layer for layer in network.modules() if type(layer) in (nn.Conv2d, nn.Linear)]
    assert len(real) == 1 + 2 + 1


def test_three_networks_have_the_same_tensors_and_learn(generator):
    """What is real in one of them is ±1 in another; each can begin where another ended."""
    names = ("binary_resnet8", "binary_activations_resnet8", "real_twin_resnet8")
    networks = [ImageNetwork(name, width=4).build(CIFAR, 10, torch.Generator().manual_seed(0)) for name in names]
    images = torch.randn(4, *CIFAR, generator=generator)
    for network in networks:
        network.load_state_dict(networks[0].state_dict())
        network(images).logsumexp(-1).sum().backward()
        assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in network.parameters())
    assert not torch.equal(networks[0](images), networks[1](images))
    assert not torch.equal(networks[1](images), networks[2](images))


@pytest.mark.parametrize(("depth", "share"), [(8, 94.4), (20, 98.3)])
def test_the_share_of_binary_operations_is_the_documented_one(depth, share):
    whole = cost(ImageNetwork(f"binary_resnet{depth}"), CIFAR, 10).multiply_adds
    real = 3 * 9 * 16 * 32**2 + 16 * 32 * 16**2 + 32 * 64 * 8**2 + 64 * 10
    assert f"{100 * (1 - real / whole):.1f}" == str(share)
    assert f"{share} %" in binary.binary_resnet.__doc__
