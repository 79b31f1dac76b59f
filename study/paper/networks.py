"""The networks that only the paper preset uses, for small images and without their heads.

Every stem is a 3×3 convolution of stride 1 without max-pooling, so that a 32×32 image enters the first stage whole.
There is no dropout: it would draw from torch's global generator. In torchvision's networks only the stem and the head
have other sizes than there.
"""

from functools import partial

from torch import nn

from lsr_core._torchvision import import_torchvision
from lsr_core.models import ARCHITECTURES
from lsr_core.models.blocks import Residual, convolution, stages, torchvision_resnet

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


def mobilenetv2(shape: tuple[int, int, int]) -> tuple[nn.Module, int]:
    """The body of MobileNetV2 and its 1,280 features; the stem and the stage of 160 channels have stride 1.

    The strides are those of Yuan et al. (2020), whose stem is a padded 1×1 convolution. Source: Sandler et al. (2018).
    """
    network = import_torchvision().models.mobilenet_v2(inverted_residual_setting=_MOBILENET_STAGES)
    network.features[0][0] = convolution(shape[0], 32)
    network.classifier = network.classifier[1]
    return _headless(network, "classifier")


def shufflenetv2(shape: tuple[int, int, int]) -> tuple[nn.Module, int]:
    """The body of ShuffleNetV2 1× and its 1,024 features; `conv1` is the stem. Source: Ma et al. (2018)."""
    network = import_torchvision().models.shufflenet_v2_x1_0()
    network.conv1[0], network.maxpool = convolution(shape[0], 24), nn.Identity()
    return _headless(network, "fc")


def googlenet(shape: tuple[int, int, int]) -> tuple[nn.Module, int]:
    """The body of GoogLeNet with BatchNorm, without auxiliary heads, and its 1,024 features.

    `conv1` is the stem, neither max-pool before the Inception blocks is there, and BatchNorm has torch's epsilon.
    Source: Szegedy et al. (2015).
    """
    network = import_torchvision().models.googlenet(aux_logits=False, init_weights=False, dropout=0.0)
    network.conv1.conv = convolution(shape[0], 64)
    network.maxpool1 = network.maxpool2 = nn.Identity()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eps = 1e-5
    return _headless(network, "fc")


def densenet121(shape: tuple[int, int, int]) -> tuple[nn.Module, int]:
    """The body of DenseNet-121 and its 1,024 features; `conv0` is the stem. Source: Huang et al. (2017)."""
    network = import_torchvision().models.densenet121()
    network.features.conv0, network.features.pool0 = convolution(shape[0], 64), nn.Identity()
    return _headless(network, "classifier")


def resnext29(shape: tuple[int, int, int]) -> tuple[nn.Module, int]:
    """The body of ResNeXt-29, 8×64d, and its 1,024 features.

    Shortcuts that change the number of channels are 1×1 convolutions. Source: Xie et al. (2017), section 5.3.
    """
    stem = [convolution(shape[0], 64), nn.BatchNorm2d(64), nn.ReLU(inplace=True)]
    blocks = stages(_grouped_bottleneck, 64, (256, 512, 1024), 3)
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten()), 1024


def wide_resnet(shape: tuple[int, int, int], *, depth: int, width: int) -> tuple[nn.Module, int]:
    """The body of a wide residual network and its `64·width` features; depth is 6n + 4.

    BatchNorm and ReLU stand before each convolution; no dropout. Source: Zagoruyko & Komodakis (2016), table 1.
    """
    blocks = stages(_preactivated, 16, (16 * width, 32 * width, 64 * width), (depth - 4) // 6)
    last = [nn.BatchNorm2d(64 * width), nn.ReLU(inplace=True)]
    return nn.Sequential(convolution(shape[0], 16), *blocks, *last, nn.AdaptiveAvgPool2d(1), nn.Flatten()), 64 * width


def _grouped_bottleneck(channels: int, width: int, stride: int) -> nn.Module:
    inner = 2 * width  # 8 groups of 64, 128 and 256 channels in the three stages
    branch = nn.Sequential(
        convolution(channels, inner, 1),
        nn.BatchNorm2d(inner),
        nn.ReLU(inplace=True),
        convolution(inner, inner, 3, stride, groups=8),
        nn.BatchNorm2d(inner),
        nn.ReLU(inplace=True),
        convolution(inner, width, 1),
        nn.BatchNorm2d(width),
    )
    projected = nn.Sequential(convolution(channels, width, 1, stride), nn.BatchNorm2d(width))
    shortcut = nn.Identity() if channels == width else projected
    return nn.Sequential(Residual(shortcut, branch), nn.ReLU(inplace=True))


def _preactivated(channels: int, width: int, stride: int) -> nn.Module:
    first = [nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
    rest = [
        convolution(channels, width, 3, stride),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        convolution(width, width),
    ]
    if channels == width:
        return Residual(nn.Identity(), nn.Sequential(*first, *rest))
    return nn.Sequential(*first, Residual(convolution(channels, width, 1, stride), nn.Sequential(*rest)))


def _headless(network: nn.Module, head: str) -> tuple[nn.Module, int]:
    """The network without its last linear layer, and how many features that layer reads."""
    features = getattr(network, head).in_features
    setattr(network, head, nn.Identity())
    return network, features


ARCHITECTURES.update(
    {
        "wide_resnet": (wide_resnet, {"width": 10, "depth": 28}),
        "resnext29": (resnext29, {}),
        "mobilenetv2": (mobilenetv2, {}),
        "shufflenetv2": (shufflenetv2, {}),
        "resnet50": (partial(torchvision_resnet, name="resnet50"), {}),
        "googlenet": (googlenet, {}),
        "densenet121": (densenet121, {}),
    }
)
