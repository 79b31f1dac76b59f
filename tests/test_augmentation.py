import importlib

import numpy as np
import pytest
import torch
from PIL import Image

from lsr_core import InputError
from lsr_core._torchvision import import_torchvision
from lsr_core.augmentation import Augmentation, normalised

OFF = Augmentation(padding=0, flip=False, rotation=0)


@pytest.fixture(scope="module")
def functional():
    import_torchvision()
    return importlib.import_module("torchvision.transforms.functional")


def some_images(*shape, seed=0):
    return torch.randint(1, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def drawn(count, seed):
    """Top, left, angle and mirror of each image as numbers in [0, 1)."""
    return torch.rand((4, count), generator=torch.Generator().manual_seed(seed)).double()


def by_torchvision(functional, image, augmentation, numbers, *, pillow=False):
    """One image the way that torchvision's transforms treat it with these draws."""
    top, left, turn, mirror = numbers.tolist()
    height, width = image.shape[-2:]
    if pillow:
        image = Image.fromarray(image.permute(1, 2, 0).squeeze(-1).numpy())
    choices = 2 * augmentation.padding + 1
    padded = functional.pad(image, augmentation.padding)
    result = functional.crop(padded, int(top * choices), int(left * choices), height, width)
    if augmentation.flip and mirror < 0.5:
        result = functional.hflip(result)
    if augmentation.rotation:
        result = functional.rotate(result, (2 * turn - 1) * augmentation.rotation)
    return functional.pil_to_tensor(result) if pillow else result


SHAPES = [(3, 32, 32), (1, 28, 28), (3, 20, 33), (1, 9, 7)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "augmentation", [Augmentation(4, True, 0), Augmentation(2, False, 0), Augmentation(0, True, 0)]
)
def test_crops_and_flips_are_torchvisions(functional, shape, augmentation):
    images = some_images(64, *shape)
    result = augmentation(images, torch.Generator().manual_seed(7))
    for image, own, numbers in zip(images, result, drawn(64, 7).T, strict=True):
        assert torch.equal(own, by_torchvision(functional, image, augmentation, numbers))


@pytest.mark.parametrize("pillow", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("augmentation", [Augmentation(), Augmentation(0, False, 15), Augmentation(3, True, 180)])
def test_rotations_are_torchvisions(functional, shape, augmentation, pillow):
    """All but those pixels whose source lies within rounding of the border between two pixels."""
    images = some_images(128, *shape)
    result = augmentation(images, torch.Generator().manual_seed(7))
    expected = torch.stack(
        [
            by_torchvision(functional, image, augmentation, numbers, pillow=pillow)
            for image, numbers in zip(images, drawn(128, 7).T, strict=True)
        ]
    )
    assert (result == expected).double().mean() >= 0.999


def test_what_comes_from_outside_is_0_and_nothing_else_is():
    result = Augmentation(4, True, 15)(some_images(50, 3, 16, 16), torch.Generator().manual_seed(0))
    empty = result == 0
    assert torch.equal(empty[:, 0], empty[:, 1])
    assert 0 < empty.double().mean() < 0.5
    assert not empty[..., 7:9, 7:9].any()


def test_pixels_of_a_neighbour_in_the_batch_or_of_another_channel_never_enter():
    images = torch.arange(1, 61, dtype=torch.uint8).view(20, 3, 1, 1).expand(20, 3, 12, 10)
    result = Augmentation()(images, torch.Generator().manual_seed(0))
    assert torch.equal(result.amax((2, 3)), images[:, :, 0, 0])
    assert set(result.flatten(2).sort().values[..., 0].flatten().tolist()) <= {0, *range(1, 61)}
    for values, own in zip(result.flatten(0, 1), images[:, :, 0, 0].flatten(), strict=True):
        assert set(values.flatten().tolist()) <= {0, int(own)}


def test_every_offset_and_flip_is_as_likely_as_another():
    """One bright pixel in the middle shows where its image went."""
    images = torch.zeros(20_000, 1, 9, 9, dtype=torch.uint8)
    images[:, 0, 4, 3] = 255
    result = Augmentation(2, True, 0)(images, torch.Generator().manual_seed(0))
    place = result.flatten(1).argmax(1)
    rows, columns = place // 9, place % 9
    assert (result.flatten(1).amax(1) == 255).all()
    found = np.histogram2d(rows, columns, bins=(range(2, 8), range(1, 9)))[0]
    plain, mirrored = np.array([1, 1, 1, 1, 1, 0, 0]), np.array([0, 0, 1, 1, 1, 1, 1])
    expected = np.ones((5, 1)) * (plain + mirrored) * 20_000 / 50
    np.testing.assert_allclose(found, expected, atol=5 * 800**0.5)


@pytest.mark.slow
def test_angles_are_uniform():
    """A line through the centre tells the angle by where it meets a column at the right, to about a degree."""
    size = 101
    images = torch.zeros(4000, 1, size, size, dtype=torch.uint8)
    images[:, :, 50] = 255
    result = Augmentation(0, False, 15)(images, torch.Generator().manual_seed(0))[:, 0, :, 90]
    height = (result.double() * (50 - torch.arange(size))).sum(1) / result.double().sum(1)
    angles = (height / 40).atan().rad2deg()
    assert angles.abs().max() < 16
    assert angles.std() == pytest.approx(15 / 3**0.5, rel=0.05)
    np.testing.assert_allclose(np.quantile(angles, [0.1, 0.25, 0.5, 0.75, 0.9]), [-12, -7.5, 0, 7.5, 12], atol=1.2)


def test_off_is_the_identity_and_the_images_are_left_alone():
    images = some_images(5, 3, 8, 8)
    before = images.clone()
    assert torch.equal(OFF(images, torch.Generator().manual_seed(0)), images)
    changed = Augmentation()(images, torch.Generator().manual_seed(0))
    assert torch.equal(images, before)
    assert (changed.shape, changed.dtype) == (images.shape, torch.uint8)


def test_the_generator_decides_and_settings_share_their_draws():
    images = some_images(40, 3, 16, 16)
    one, again, other = (Augmentation()(images, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    generators = [torch.Generator().manual_seed(0) for _ in range(3)]
    for augmentation, generator in zip((OFF, Augmentation(), Augmentation(rotation=0)), generators, strict=True):
        augmentation(images, generator)
    assert len({torch.rand((), generator=generator).item() for generator in generators}) == 1


def test_images_of_one_batch_differ():
    images = some_images(1, 3, 32, 32).expand(200, -1, -1, -1)
    result = Augmentation()(images, torch.Generator().manual_seed(0))
    assert len(result.flatten(1).unique(dim=0)) == 200


def test_an_empty_batch_stays_empty():
    assert Augmentation()(some_images(0, 3, 8, 8), torch.Generator()).shape == (0, 3, 8, 8)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_gpu_gives_the_same_images():
    images = some_images(256, 3, 32, 32)
    own, there = (Augmentation()(i, torch.Generator().manual_seed(0)).cpu() for i in (images, images.cuda()))
    assert (own == there).double().mean() > 0.999


def test_normalised_is_torchvisions(functional):
    images = some_images(6, 3, 5, 4)
    mean, std = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)
    expected = functional.normalize(images.float() / 255, mean, std)
    found = normalised(images, mean, std)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(normalised(images.view(2, 3, 3, 5, 4), mean, std), expected.view(2, 3, 3, 5, 4))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"padding": -1}, "padding is -1; it must be a whole number of pixels, 0 or above"),
        ({"padding": 1.5}, r"padding is 1\.5"),
        ({"padding": True}, "padding is True"),
        ({"flip": 0.5}, r"flip is 0\.5; it must be True or False"),
        ({"rotation": 200}, "rotation is 200; it must be 0 to 180 degrees"),
        ({"rotation": float("nan")}, "rotation is nan"),
        ({"rotation": "15"}, "rotation is '15'"),
    ],
)
def test_values_that_cannot_be_are_refused(values, message):
    with pytest.raises(InputError, match=message):
        Augmentation(**values)


@pytest.mark.parametrize("images", [torch.zeros(2, 3, 8, 8), torch.zeros(3, 8, 8, dtype=torch.uint8)])
def test_other_images_are_refused(images):
    with pytest.raises(InputError, match=r"images are .*; they must be uint8 \[B, C, H, W\]"):
        Augmentation()(images, torch.Generator())
