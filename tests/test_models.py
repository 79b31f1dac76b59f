import numpy as np
import pytest
import torch
from torch import nn

from lsr_core import InputError, objective
from lsr_core.models import Convnet, Perceptron
from lsr_core.run import Run
from lsr_core.schedule import Schedule
from lsr_core.trainer import Trainer, train


def generators(count):
    return [torch.Generator().manual_seed(i) for i in range(count)]


def ordinary(stacked, run):
    """torch's own layers with the weights of one run of a stack of convnets."""
    layers = []
    for i, (kernel, scale, shift) in enumerate(zip(stacked.kernels, stacked.scales, stacked.shifts, strict=True)):
        out, given = kernel.shape[1:3]
        conv, norm = nn.Conv2d(given, out, 3, stride=1 if i == 0 else 2, padding=1, bias=False), nn.BatchNorm2d(out)
        conv.weight.data, norm.weight.data, norm.bias.data = (
            kernel[run].detach(),
            scale[run].detach(),
            shift[run].detach(),
        )
        layers += [conv, norm, nn.ReLU()]
    head = nn.Linear(*stacked.head_weight.shape[1:])
    weight, bias = (parameter[run].detach() for parameter in stacked.head)
    head.weight.data, head.bias.data = weight.T.contiguous(), bias[0]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head).double()


@pytest.mark.parametrize("channels", [(4,), (3, 5), (2, 4, 8)])
def test_a_stack_of_convnets_is_torchs_own_layers_side_by_side(channels, generator):
    stacked = Convnet(channels).stack(64, 10, generators(3)).double()
    networks = [ordinary(stacked, run) for run in range(3)]
    for _ in range(3):  # batch statistics, and what they leave in the running ones
        inputs = torch.randn(3, 25, 64, generator=generator, dtype=torch.float64)
        outputs = stacked(inputs)
        theirs = [network(images.view(25, 1, 8, 8)) for network, images in zip(networks, inputs, strict=True)]
        torch.testing.assert_close(outputs, torch.stack(theirs))
    outputs.square().sum().backward()
    torch.stack(theirs).square().sum().backward()
    for run, network in enumerate(networks):
        for i, kernel in enumerate(stacked.kernels):
            torch.testing.assert_close(kernel.grad[run], network[3 * i].weight.grad)
            torch.testing.assert_close(stacked.scales[i].grad[run], network[3 * i + 1].weight.grad)
        torch.testing.assert_close(stacked.head_weight.grad[run], network[-1].weight.grad.T)
    inputs = torch.randn(3, 7, 64, generator=generator, dtype=torch.float64)
    evaluated = [n.eval()(images.view(7, 1, 8, 8)) for n, images in zip(networks, inputs, strict=True)]
    torch.testing.assert_close(stacked.eval()(inputs), torch.stack(evaluated))


def convnet_runs(count, **schedule):
    methods = [objective("cross-entropy"), objective("lsr"), objective("lsrkd"), objective("lsrkd-tc")]
    constants = {"learning_rate": 0.1, "weight_decay": 1e-3, "epochs": 2, **schedule}
    return [
        Run("digits", 125, methods[i % 4], Schedule(**constants), seed=i // 4, network=Convnet((4, 8)))
        for i in range(count)
    ]


def test_convnets_end_stacked_where_they_end_alone():
    batch = convnet_runs(8)
    stack = Trainer(batch, dtype=torch.float64)
    stack.train()
    for place, run in enumerate(batch):
        alone = Trainer([run], dtype=torch.float64)
        alone.train()
        for ours, theirs in zip(stack.network.parameters(), alone.network.parameters(), strict=True):
            torch.testing.assert_close(ours[place], theirs[0], rtol=1e-9, atol=1e-11)


def test_convnets_alone_end_within_a_millionth_of_where_they_end_in_company():
    runs = [Run("digits", 100, objective("lsr"), Schedule(0.1, epochs=4), seed, Convnet()) for seed in range(3)]
    stack = Trainer(runs)
    for place, outcome in enumerate(stack.train()):
        alone = Trainer(runs[place : place + 1])
        (own,) = alone.train()
        for name, tensor in alone.weights(0).items():
            assert (tensor - stack.weights(place)[name]).abs().max() <= 1e-6 * tensor.abs().max()
        assert own.metrics["accuracy"] == outcome.metrics["accuracy"]


def test_the_same_stack_of_convnets_again_is_the_same_bit_for_bit():
    assert train(convnet_runs(4)) == train(convnet_runs(4))


def test_a_diverging_convnet_changes_no_bit_of_its_mates():
    batch = convnet_runs(4)
    wild = convnet_runs(4)
    wild[2] = convnet_runs(4, learning_rate=1e30)[2]
    calm, shaken = train(batch), train(wild)
    assert shaken[2].diverged_at is not None
    assert [calm[i] for i in (0, 1, 3)] == [shaken[i] for i in (0, 1, 3)]


def test_a_convnet_learns():
    run = Run("digits", 300, objective("cross-entropy"), Schedule(0.1, 1e-3, epochs=15), 0, Convnet())
    (outcome,) = train([run])
    assert outcome.metrics["accuracy"] > 0.8
    assert np.isfinite(outcome.metrics["nll"])


def test_networks_have_keys_of_their_own():
    schedule = Schedule(0.1)
    networks = [Perceptron(), Perceptron((32,)), Convnet(), Convnet((4,))]
    keys = {Run("digits", 100, objective("lsr"), schedule, 0, network).key for network in networks}
    assert len(keys) == 4


@pytest.mark.parametrize(
    ("channels", "message"),
    [
        ((), "channels is empty"),
        ((8, 0), "channels is 0; it must be a whole number above 0"),
        ((2.5,), "channels is 2.5"),
    ],
)
def test_channels_that_cannot_be_are_refused(channels, message):
    with pytest.raises(InputError, match=message):
        Convnet(channels)


def test_a_convnet_needs_an_image():
    with pytest.raises(InputError, match="32 inputs make no square image; a convnet needs one"):
        Run("mixture-10-80", 100, objective("lsr"), Schedule(0.1), 0, network=Convnet())
