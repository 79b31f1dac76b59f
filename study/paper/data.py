"""The image sets that only the paper preset uses, extracted and read by torchvision.

CINIC-10 (Darlow et al. 2018): `train` is for training and `test` for testing, `valid` is left out. Tiny-ImageNet: its
labelled `val` is the test set.
"""

from pathlib import Path
from typing import Any

import numpy as np

from lsr_core._progress import bar
from lsr_core._torchvision import import_torchvision
from lsr_core.data import DATASETS, Download, Images
from lsr_core.data.download import archive

CINIC10 = ("https://datashare.ed.ac.uk/bitstream/handle/10283/3192/CINIC-10.tar.gz", "6ee4d0c996905fe93221de577967a372")
TINY_IMAGENET = ("http://cs231n.stanford.edu/tiny-imagenet-200.zip", "90528d7ca1a48142e341f4ef8d21d0de")
_CONVERSION = 1  # raised when a change of the code changes the arrays


def cinic10(folder: Path) -> dict[str, Any]:
    """CINIC-10 without its validation part."""
    root, arrays = _extracted(CINIC10, folder), {"source": np.array(source(CINIC10))}
    for part in ("train", "test"):
        images = import_torchvision().datasets.ImageFolder(root / part)
        arrays |= {f"{part}_images": _pixels(images), f"{part}_labels": np.array(images.targets, np.int64)}
    return arrays | {"class_names": np.array(images.classes)}


def tiny_imagenet(folder: Path) -> dict[str, Any]:
    """Tiny-ImageNet; `val/val_annotations.txt` has the labels of the test images, `words.txt` the classes' names."""
    root = _extracted(TINY_IMAGENET, folder) / "tiny-imagenet-200"
    train, test = (import_torchvision().datasets.ImageFolder(root / part) for part in ("train", "val"))
    class_of = dict(
        line.split("\t")[:2] for line in (root / "val" / "val_annotations.txt").read_text(encoding="utf-8").splitlines()
    )
    words = dict(line.split("\t") for line in (root / "words.txt").read_text(encoding="utf-8").splitlines())
    return {
        "train_images": _pixels(train),
        "train_labels": np.array(train.targets, np.int64),
        "test_images": _pixels(test),
        "test_labels": np.array([train.class_to_idx[class_of[Path(path).name]] for path, _ in test.samples], np.int64),
        "class_names": np.array([words[name].split(",")[0] for name in train.classes]),
        "source": np.array(source(TINY_IMAGENET)),
    }


def source(url_and_md5: tuple[str, str]) -> str:
    """The fingerprint of a set: its archive and the version of its conversion.

    It is no hash of the pixels, in which JPEG decoders may differ by a bit.
    """
    return f"{url_and_md5[1]}-{_CONVERSION}"


def _extracted(url_and_md5: tuple[str, str], folder: Path) -> Path:
    url, md5 = url_and_md5
    extracted = folder / "extracted"
    import_torchvision().datasets.utils.extract_archive(archive(url, folder, md5), extracted)
    return extracted


def _pixels(images: Any) -> np.ndarray:
    """The pictures of an `ImageFolder` as uint8 `[N, H, W, 3]`, grey ones with three equal channels."""
    return np.stack([np.asarray(image) for image, _ in bar(images, desc=Path(images.root).name, unit=" images")])


# Means and deviations are the training part's; Tiny-ImageNet's are those of the released code of Yuan et al. (2020).
_CINIC10 = Images(
    "cinic10",
    (9000,) * 10,
    (3, 32, 32),
    source(CINIC10),
    (0.4789, 0.4723, 0.4305),
    (0.2421, 0.2383, 0.2587),
    download=Download(cinic10, ("CINIC-10.tar.gz",)),
)
_TINY_IMAGENET = Images(
    "tiny_imagenet",
    (500,) * 200,
    (3, 64, 64),
    source(TINY_IMAGENET),
    (0.4802, 0.4481, 0.3975),
    (0.2302, 0.2265, 0.2262),
    download=Download(tiny_imagenet, ("tiny-imagenet-200.zip",)),
)
DATASETS.update({images.name: images for images in (_CINIC10, _TINY_IMAGENET)})
