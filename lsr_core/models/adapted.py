"""torchvision's networks with stems for small images, without their heads.

Every stem is a 3×3 convolution of stride 1 without max-pooling, so that a 32×32 image enters the first stage whole.
There is no dropout: it would draw from torch's global generator. All sizes but the stem's and head's are torchvision's.
"""

from collections.abc import Callable

from torch import nn

from .._torchvision import import_torchvision

# Expansion, channels, blocks, stride; torchvision's last stride of 2 is 1 here: 32×32 images end as 4×4, not 2×2.
_MOBILENET_STAGES = [
    [1, 16, 1, 1],
    [6, 24, 2, 2],
    [6, 32, 3, 2],
    [6, 64, 4, 2],
    [6, 96, 3, 1],
    [6, 160, 3, 1],
    [6, 320, 1, 1],
]


def resnet18(shape: tuple[int, int, int]) -> tuple[nn.Module, int]:
    """The body of ResNet-18 and its 512 features; `conv1` is the stem. Source: He et al. (2016)."""
    return _resnet(import_torchvision().models.resnet18, shape)


def resnet50(shape: tuple[int, int, int]) -> tuple[nn.Module, int]:
    """The body of ResNet-50 and its 2,048 features; `conv1` is the stem. Source: He et al. (2016)."""
    return _resnet(import_torchvision().models.resnet50, shape)


def mobilenetv2(shape: tuple[int, int, int]) -> tuple[nn.Module, int]:
    """The body of MobileNetV2 and its 1,280 features; the stem and the stage of 160 channels have stride 1.

    The strides are those of Yuan et al. (2020), whose stem is a padded 1×1 convolution. Source: Sandler et al. (2018).
    """
    network = import_torchvision().models.mobilenet_v2(inverted_residual_setting=_MOBILENET_STAGES)
    network.features[0][0] = _stem(shape, 32)
    network.classifier = network.classifier[1]
    return _headless(network, "classifier")


def shufflenetv2(shape: tuple[int, int, int]) -> tuple[nn.Module, int]:
    """The body of ShuffleNetV2 1× and its 1,024 features; `conv1` is the stem. Source: Ma et al. (2018)."""
    network = import_torchvision().models.shufflenet_v2_x1_0()
    network.conv1[0] = _stem(shape, 24)
    network.maxpool = nn.Identity()
    return _headless(network, "fc")


def googlenet(shape: tuple[int, int, int]) -> tuple[nn.Module, int]:
    """The body of GoogLeNet with BatchNorm, without auxiliary heads, and its 1,024 features.

    `conv1` is the stem, neither max-pool before the Inception blocks is there, and BatchNorm has torch's epsilon.
    Source: Szegedy et al. (2015).
    """
    network = import_torchvision().models.googlenet(aux_logits=False, init_weights=False, dropout=0.0)
    network.conv1.conv = _stem(shape, 64)
    network.maxpool1 = network.maxpool2 = nn.Identity()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eps = 1e-5
    return _headless(network, "fc")


def densenet121(shape: tuple[int, int, int]) -> tuple[nn.Module, int]:
    """The body of DenseNet-121 and its 1,024 features; `conv0` is the stem. Source: Huang et al. (2017)."""
    network = import_torchvision().models.densenet121()
    network.features.conv0 = _stem(shape, 64)
    network.features.pool0 = nn.Identity()
    return _headless(network, "classifier")


def _resnet(make: Callable[[], nn.Module], shape: tuple[int, int, int]) -> tuple[nn.Module, int]:
    network = make()
    network.conv1 = _stem(shape, 64)
    network.maxpool = nn.Identity()
    return _headless(network, "fc")


def _stem(shape: tuple[int, int, int], out: int) -> nn.Conv2d:
    return nn.Conv2d(shape[0], out, 3, padding=1, bias=False)


def _headless(network: nn.Module, head: str) -> tuple[nn.Module, int]:
    """The network without its last linear layer, and how many features that layer read."""
    features = getattr(network, head).in_features
    setattr(network, head, nn.Identity())
    return network, features
