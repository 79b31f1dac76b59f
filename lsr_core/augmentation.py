"""Augmentation of a whole batch on its device, every image in its own way, in one gather."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import pad

from .errors import hold_plain, require, require_number


@dataclass(frozen=True)
class Augmentation:
    """Random crop, flip and rotation of raw pixels, in this order, what comes from outside the image being 0.

    `padding` pixels are added on every side before a crop of the image's own size; `flip` mirrors every other image
    left to right; `rotation` turns it by up to so many degrees either way around its centre, to the nearest pixel. The
    values given are those of the released CIFAR pipelines (Yuan et al. 2020): 4 pixels, flips, 15 degrees. Raises
    `InputError` for values out of range.
    """

    padding: int = 4
    flip: bool = True
    rotation: float = 15.0

    def __post_init__(self) -> None:
        hold_plain(self)
        pixels = "it must be a whole number of pixels, 0 or above"
        require_number("padding", self.padding, int, lambda n: n >= 0, pixels)
        require(isinstance(self.flip, bool), f"flip is {self.flip!r}; it must be True or False")
        require_number("rotation", self.rotation, float, lambda r: 0 <= r <= 180, "it must be 0 to 180 degrees")
        object.__setattr__(self, "rotation", float(self.rotation))

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Augmented images uint8 `[B, C, H, W]` of such images.

        Four numbers are drawn for each image whatever is switched on, so that settings compared share their draws; they
        are drawn on the generator's device and go to the images' in one transfer.
        """
        fits = images.dtype == torch.uint8 and images.ndim == 4
        require(fits, f"images are {images.dtype} {list(images.shape)}; they must be uint8 [B, C, H, W]")
        drawn = torch.rand((4, len(images)), generator=generator, device=generator.device).to(images.device)
        border = max(self.padding, 1)  # so that there is a 0 to take outside pixels from: the first of the padded image
        source = self._source(drawn, *images.shape[-2:], border).flatten(1)
        padded = pad(images, (border,) * 4).flatten(2)
        taken = padded.gather(2, source[:, None].expand(-1, images.shape[1], -1))
        return taken.view(images.shape)

    def _source(self, drawn: Tensor, height: int, width: int, border: int) -> Tensor:
        """Where in its padded image each pixel comes from, int64 `[B, H, W]`, from four numbers in [0, 1) an image.

        Whole numbers in float32, in which arithmetic and clamping are fast and comparing is not needed.
        """
        top, left = (drawn[:2, :, None, None] * (2 * self.padding + 1)).floor() + (border - self.padding)
        mirrored = (drawn[3, :, None, None] < 0.5) * float(self.flip)
        row = width + 2 * border
        first = top * row + left + mirrored * (width - 1)
        y = torch.arange(height, dtype=torch.float32, device=drawn.device)[:, None]
        x = torch.arange(width, dtype=torch.float32, device=drawn.device)
        if not self.rotation:
            return (first + row * y + (1 - 2 * mirrored) * x).long()
        y, x = self._rotated(drawn[2, :, None, None], y - (height - 1) / 2, x - (width - 1) / 2)
        y, x = y.add_(height / 2).floor_(), x.add_(width / 2).floor_()
        inner_y, inner_x = y.clamp(0, height - 1), x.clamp(0, width - 1)
        outside = y.sub_(inner_y).abs_().add_(x.sub_(inner_x).abs_()).clamp_(max=1)
        place = inner_y.mul_(row).add_(inner_x.mul_(1 - 2 * mirrored)).add_(first)
        return place.mul_(1 - outside).long()

    def _rotated(self, drawn: Tensor, y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Coordinates around the centre before a turn to the left by angles drawn from their range."""
        angle = (2 * drawn - 1) * (self.rotation * torch.pi / 180)
        sine, cosine = angle.sin(), angle.cos()
        return sine * x + cosine * y, cosine * x - sine * y


def normalised(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Images uint8 `[..., C, H, W]` as float32 with each channel's mean taken off and in units of its deviation.

    `mean` and `std` are in units of the full range, 255.
    """
    offset, scale = _statistics(mean, std, images.device)
    return images.float().sub_(offset).div_(scale)


@lru_cache(maxsize=8)
@torch.inference_mode(False)
def _statistics(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> Tensor:
    """Means and deviations of pixels `[2, C, 1, 1]`, sent to a device once."""
    return 255 * torch.tensor((mean, std), device=device)[..., None, None]
