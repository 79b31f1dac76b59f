"""Residual networks for small images that torchvision lacks: a 3×3 stem, three stages, the mean over positions."""

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn.functional import pad


def cifar_resnet(shape: tuple[int, int, int], *, depth: int, width: int) -> tuple[nn.Module, int]:
    """The body for images of this shape and what it gives, `4·width` features; depth is 6n + 2.

    Shortcuts that change size have no weights: every other pixel, and zeros for the new channels (option A).
    Source: He et al. (2016), section 4.2.
    """
    stem = [_conv(shape[0], width), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
    stages = _stages(_basic, width, (width, 2 * width, 4 * width), (depth - 2) // 6)
    return nn.Sequential(*stem, *stages, *_mean()), 4 * width


def resnext29(shape: tuple[int, int, int]) -> tuple[nn.Module, int]:
    """The body of ResNeXt-29, 8×64d, for images of this shape and its 1,024 features.

    Shortcuts that change the number of channels are 1×1 convolutions. Source: Xie et al. (2017), section 5.3.
    """
    stem = [_conv(shape[0], 64), nn.BatchNorm2d(64), nn.ReLU(inplace=True)]
    return nn.Sequential(*stem, *_stages(_grouped_bottleneck, 64, (256, 512, 1024), 3), *_mean()), 1024


def wide_resnet(shape: tuple[int, int, int], *, depth: int, width: int) -> tuple[nn.Module, int]:
    """The body for images of this shape and what it gives, `64·width` features; depth is 6n + 4.

    BatchNorm and ReLU stand before each convolution; no dropout. Source: Zagoruyko & Komodakis (2016), table 1.
    """
    stages = _stages(_preactivated, 16, (16 * width, 32 * width, 64 * width), (depth - 4) // 6)
    last = [nn.BatchNorm2d(64 * width), nn.ReLU(inplace=True)]
    return nn.Sequential(_conv(shape[0], 16), *stages, *last, *_mean()), 64 * width


class _Sum(nn.Module):
    """Shortcut plus branch."""

    def __init__(self, shortcut: nn.Module, branch: nn.Module) -> None:
        super().__init__()
        self.shortcut, self.branch = shortcut, branch

    def forward(self, maps: Tensor) -> Tensor:
        return self.shortcut(maps) + self.branch(maps)


class _ZeroPadded(nn.Module):
    """Every other pixel, and `more` channels of zeros."""

    def __init__(self, more: int) -> None:
        super().__init__()
        self.more = more

    def forward(self, maps: Tensor) -> Tensor:
        return pad(maps[:, :, ::2, ::2], (0, 0, 0, 0, 0, self.more))


def _stages(
    block: Callable[[int, int, int], nn.Module], given: int, widths: tuple[int, ...], blocks: int
) -> list[nn.Module]:
    """`blocks` blocks of each width; the first block of every stage but the first halves the image."""
    layers = []
    for stage, out in enumerate(widths):
        for place in range(blocks):
            layers.append(block(given, out, 2 if stage > 0 and place == 0 else 1))
            given = out
    return layers


def _basic(given: int, out: int, stride: int) -> nn.Module:
    branch = nn.Sequential(
        _conv(given, out, 3, stride),
        nn.BatchNorm2d(out),
        nn.ReLU(inplace=True),
        _conv(out, out),
        nn.BatchNorm2d(out),
    )
    shortcut = nn.Identity() if stride == 1 else _ZeroPadded(out - given)
    return nn.Sequential(_Sum(shortcut, branch), nn.ReLU(inplace=True))


def _grouped_bottleneck(given: int, out: int, stride: int) -> nn.Module:
    inner = 2 * out  # 8 groups of 64, 128 and 256 channels in the three stages
    branch = nn.Sequential(
        _conv(given, inner, 1),
        nn.BatchNorm2d(inner),
        nn.ReLU(inplace=True),
        _conv(inner, inner, 3, stride, groups=8),
        nn.BatchNorm2d(inner),
        nn.ReLU(inplace=True),
        _conv(inner, out, 1),
        nn.BatchNorm2d(out),
    )
    projected = nn.Sequential(_conv(given, out, 1, stride), nn.BatchNorm2d(out))
    return nn.Sequential(_Sum(nn.Identity() if given == out else projected, branch), nn.ReLU(inplace=True))


def _preactivated(given: int, out: int, stride: int) -> nn.Module:
    first = [nn.BatchNorm2d(given), nn.ReLU(inplace=True)]
    rest = [_conv(given, out, 3, stride), nn.BatchNorm2d(out), nn.ReLU(inplace=True), _conv(out, out)]
    if given == out:
        return _Sum(nn.Identity(), nn.Sequential(*first, *rest))
    return nn.Sequential(*first, _Sum(_conv(given, out, 1, stride), nn.Sequential(*rest)))


def _conv(given: int, out: int, size: int = 3, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(given, out, size, stride, padding=size // 2, groups=groups, bias=False)


def _mean() -> tuple[nn.Module, nn.Module]:
    return nn.AdaptiveAvgPool2d(1), nn.Flatten()
