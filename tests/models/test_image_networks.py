import math
import subprocess
import sys

import pytest
import torch
from sizes import mostly_slow
from torch import nn

from lsr_core import InputError, objective
from lsr_core.data import Images
from lsr_core.models import ARCHITECTURES, ImageNetwork
from lsr_core.models.binary import RPReLU, RSign
from lsr_core.run import Run, run_of
from lsr_core.schedule import Schedule

CIFAR = (3, 32, 32)
SMALL = {"wide_resnet": {"width": 1, "depth": 10}, "plain_cnn": {"width": 8}, "resnet56": {"width": 4}}
QUICK = ("plain_cnn", "resnet8", "mobilenetv2")
BUILT = mostly_slow(("plain_cnn", "resnet8", "resnet56", "resnet18", "wide_resnet", "mobilenetv2"), *QUICK)


def small(architecture):
    return ImageNetwork(architecture, **SMALL.get(architecture, {}))


def built(architecture, shape=CIFAR, classes=10, seed=0):
    return small(architecture).build(shape, classes, torch.Generator().manual_seed(seed))


SIDES = [(name, shape) for shape in ((1, 28, 28), CIFAR, (3, 64, 64)) for name in ("plain_cnn", "resnet8")]


@pytest.mark.parametrize(("architecture", "shape"), [*SIDES, *((name, CIFAR) for name in ARCHITECTURES)], ids=str)
def test_images_give_logits_and_features(architecture, shape):
    network = ImageNetwork(architecture).skeleton(shape, 7)
    images = torch.empty(2, *shape, device="meta")
    assert network(images).shape == (2, 7)
    assert network.penultimate(images).shape == (2, network.linear.in_features)


@pytest.mark.parametrize("architecture", mostly_slow(ARCHITECTURES, *QUICK))
def test_every_parameter_serves_the_logits_and_none_is_left_undrawn(architecture):
    """On the meta device: layers are of the kinds that `build` draws, with torch's constants and without dropout."""
    network = ImageNetwork(architecture).skeleton(CIFAR, 7)
    network(torch.empty(2, *CIFAR, device="meta")).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
    norms = 0
    for name, layer in network.named_modules():
        if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
            norms += 1
            fresh = type(layer)(layer.num_features)
            assert (layer.eps, layer.momentum) == (fresh.eps, fresh.momentum), name
        elif isinstance(layer, (nn.Conv2d, nn.Linear)):
            assert layer.bias is None or isinstance(layer, nn.Linear), name
        elif isinstance(layer, (RSign, RPReLU)):
            continue
        else:
            assert not list(layer.parameters(recurse=False)), name
            assert not isinstance(layer, nn.Dropout) or layer.p == 0, name
    assert norms > 2


@pytest.mark.parametrize("architecture", BUILT)
def test_every_layers_weights_come_from_the_generator_alone(architecture):
    before = torch.get_rng_state()
    first = built(architecture)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(1)  # another state of torch's own generator
    again, other = built(architecture).state_dict(), built(architecture, seed=1).state_dict()
    for name, values in first.state_dict().items():
        assert torch.equal(values, again[name]), name
        if values.ndim > 1:
            assert not torch.equal(values, other[name]), name


@pytest.mark.parametrize("architecture", BUILT)
def test_layers_start_as_documented(architecture):
    for name, layer in built(architecture).named_modules():
        if isinstance(layer, nn.Conv2d):
            spread = math.sqrt(2 / (layer.out_channels * layer.weight[0, 0].numel()))
            few = 6 / math.sqrt(2 * layer.weight.numel())  # six standard errors
            assert layer.weight.std().item() == pytest.approx(spread, rel=few), name
        elif isinstance(layer, nn.Linear):
            bound = 1 / math.sqrt(layer.in_features)
            assert 0.9 * bound < layer.weight.abs().max() <= bound, name
        elif isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
            fresh = type(layer)(layer.num_features).state_dict()
            assert all(torch.equal(values, fresh[part]) for part, values in layer.state_dict().items()), name


@pytest.mark.parametrize("architecture", BUILT)
def test_a_gradient_reaches_every_parameter_and_nothing_else_is_drawn(architecture, generator):
    network = built(architecture)
    before = torch.get_rng_state()
    images = torch.randn(3, *CIFAR, generator=generator)
    nn.functional.cross_entropy(network(images), torch.arange(3)).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name
    assert torch.equal(torch.get_rng_state(), before)
    network.eval()
    with torch.no_grad():
        read = nn.functional.linear(network.penultimate(images), *network.head)
        torch.testing.assert_close(read, network(images))
        assert torch.equal(network.head[0], network.linear.weight)


@pytest.mark.parametrize("architecture", ["resnet8", "shufflenetv2"])
def test_channels_last_and_bf16_run(architecture, generator):
    network = built(architecture).eval()
    images = torch.randn(2, *CIFAR, generator=generator)
    with torch.no_grad():
        expected = network(images)
        network = network.to(memory_format=torch.channels_last)
        images = images.to(memory_format=torch.channels_last)
        torch.testing.assert_close(network(images), expected, rtol=1e-4, atol=1e-5)
    network.train()
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(images)
    assert logits.dtype == torch.float32  # the last layer's
    logits.square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


def test_a_cifar_resnets_shortcut_takes_every_other_pixel_and_adds_zeros():
    block = built("resnet8").body[4]  # the first of 32 channels
    maps = torch.arange(2 * 16 * 7 * 7.0).view(2, 16, 7, 7)
    shortcut = block[0].shortcut(maps)
    assert shortcut.shape == (2, 32, 4, 4)
    assert torch.equal(shortcut[:, :16], maps[:, :, ::2, ::2])
    assert not shortcut[:, 16:].any()


@pytest.mark.parametrize(("depth", "architecture"), [(8, "resnet8"), (20, "resnet20"), (56, "resnet56")])
def test_a_cifar_resnet_has_the_layers_of_its_name(depth, architecture):
    layers = [m for m in small(architecture).skeleton(CIFAR, 10).modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert len(layers) == depth


def test_sizes_left_out_are_the_papers():
    assert ImageNetwork("resnet20") == ImageNetwork("resnet20", width=16)
    assert ImageNetwork("wide_resnet") == ImageNetwork("wide_resnet", width=10, depth=28)
    assert hash(ImageNetwork("resnet18")) == hash(ImageNetwork("resnet18"))
    assert ImageNetwork("resnet20", width=8).canonical() == {
        "name": "image-network", "architecture": "resnet20", "width": 8, "depth": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("resnet19",), "unknown architecture 'resnet19'; there are plain_cnn, resnet8"),
        ((18,), "unknown architecture 18; there are"),
        (("resnet18", 64), "width is 64; resnet18 has none to choose"),
        (("resnet20", None, 20), "depth is 20; resnet20 has none to choose"),
        (("resnet20", 0), "width is 0; it must be a whole number above 0"),
        (("plain_cnn", 2.5), "width is 2.5; it must be a whole number above 0"),
        (("wide_resnet", 2, 20), r"depth is 20; wide_resnet has 6n \+ 4 layers: 10, 16, 22, 28"),
        (("wide_resnet", 2, 4), "depth is 4; wide_resnet has"),
        (("wide_resnet", 2, True), "depth is True; it must be a whole number above 0"),
    ],
)
def test_a_description_that_cannot_be_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        ImageNetwork(*arguments)


@pytest.mark.parametrize("shape", [(2, 32, 32), (3, 27, 27), (3, 65, 65), (3, 32, 28), (32, 32), [3, 32, 32], "rgb"])
def test_images_of_other_shapes_are_refused(shape):
    with pytest.raises(InputError, match=r"resnet8 takes \(C, H, W\) of square images of 1 or 3 channels and 28 to 64"):
        small("resnet8").build(shape, 10, torch.Generator())


def test_one_class_is_refused():
    with pytest.raises(InputError, match="classes is 1; it must be a whole number, 2 or above"):
        small("resnet8").build(CIFAR, 1, torch.Generator())


@pytest.mark.parametrize("input_dim", [28 * 28, 3 * 32 * 32, 3 * 64 * 64])
def test_inputs_that_make_an_image_are_taken(input_dim):
    assert ImageNetwork("resnet8").check(input_dim) is None


@pytest.mark.parametrize("input_dim", [57, 64, 3 * 27 * 27, 2 * 32 * 32, 3 * 65 * 65])
def test_inputs_that_make_no_image_are_refused(input_dim):
    with pytest.raises(InputError, match=f"{input_dim} inputs make no image for resnet8; it takes square images of 1"):
        ImageNetwork("resnet8").check(input_dim)


def test_runs_on_images_are_described_and_made_again(monkeypatch):
    images = Images("images", (10,) * 10, CIFAR, "0", (0.5,) * 3, (0.25,) * 3)
    monkeypatch.setattr("lsr_core.run.dataset", lambda name: {"images": images}[name])
    networks = [ImageNetwork("resnet20"), ImageNetwork("resnet20", 8), ImageNetwork("wide_resnet", 2, 16)]
    runs = [Run("images", 50, objective("lsr"), Schedule(0.1), 0, network) for network in networks]
    assert len({run.key for run in runs}) == len({run.stack_key for run in runs}) == 3
    for run in runs:
        assert run_of(run.canonical()) == run


def test_a_run_on_other_data_than_images_is_refused():
    with pytest.raises(InputError, match=r"digits holds vectors, which .*resnet8.* cannot take"):
        Run("digits", 100, objective("lsr"), Schedule(0.1), 0, ImageNetwork("resnet8"))


@pytest.mark.slow
def test_describing_a_network_does_not_import_torchvision():
    code = """
import sys
from lsr_core import models, run as runs
models.ImageNetwork("resnet18").check(3072)
print("torchvision" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


def test_a_small_network_learns(generator):
    network = ImageNetwork("resnet8", width=4).build((1, 28, 28), 2, generator)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    labels = torch.arange(32) % 2
    images = torch.randn(32, 1, 28, 28, generator=generator)
    images[labels == 1, :, :14] += 1  # one class has a bright upper half
    for _ in range(20):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
    assert (network(images).argmax(1) == labels).float().mean() > 0.95
