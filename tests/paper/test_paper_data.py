"""The image sets of the paper preset, from tiny archives of the same layout on this machine."""

import io
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from archives import is_empty, md5, tar_of
from PIL import Image

from lsr_core import InputError
from lsr_core.data import DATASETS
from lsr_core.data._uniform import read_arrays
from lsr_core.data.download import fetch
from study.paper import data

RANDOM = np.random.default_rng(0)


def serve(served, monkeypatch, name, content):
    """Let a set's archive be this one."""
    folder, address = served
    (file_name,) = DATASETS[name].download.archives
    (folder / file_name).write_bytes(content)
    monkeypatch.setattr(data, name.upper(), (f"{address}/{file_name}", md5(content)))


def picture(kind, pixels):
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, kind)
    return content.getvalue()


@pytest.fixture
def cinic():
    """Its pictures, by path, one of them grey; and the archive."""
    pictures = {
        f"./{part}/{label}/{origin}-{part}-{i}.png": RANDOM.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        for part in ("train", "valid", "test")
        for label in ("airplane", "truck")
        for i, origin in enumerate(("cifar10", "n02691156"))
    }
    pictures["./test/truck/grey.png"] = RANDOM.integers(0, 256, (32, 32), dtype=np.uint8)
    files = {name: picture("PNG", pixels) for name, pixels in pictures.items()}
    return pictures, tar_of({**files, "./README.md": b"words", "./imagenet-contributors.csv": b"more words"})


def test_cinic10_is_converted_without_its_valid_part(served, monkeypatch, tmp_path, cinic):
    pictures, content = cinic
    serve(served, monkeypatch, "cinic10", content)
    path = tmp_path / "data" / "cinic10.npz"
    fetch("cinic10", path, DATASETS["cinic10"].download)
    arrays = read_arrays(path)
    assert arrays["class_names"].tolist() == ["airplane", "truck"]
    assert arrays["source"] == f"{md5(content)}-1"
    for part, count in (("train", 4), ("test", 5)):
        assert arrays[f"{part}_images"].shape == (count, 32, 32, 3)
        found = zip(arrays[f"{part}_labels"], arrays[f"{part}_images"], strict=True)
        expected = [(name, pixels) for name, pixels in sorted(pictures.items()) if name.startswith(f"./{part}")]
        for (label, image), (name, pixels) in zip(found, expected, strict=True):
            assert label == ("truck" in name)
            np.testing.assert_array_equal(image, pixels if pixels.ndim == 3 else pixels[..., None].repeat(3, -1))
    assert [file.name for file in path.parent.iterdir() if file.name[0] != "."] == ["cinic10.npz"]


def test_a_converted_set_knows_its_archive(served, monkeypatch, cinic):
    serve(served, monkeypatch, "cinic10", cinic[1])
    fingerprint = data.source(data.CINIC10)
    source = replace(DATASETS["cinic10"], counts=(2, 2), fingerprint=fingerprint)
    with pytest.raises(InputError, match=r"cinic10 is missing at .*; `lsr data fetch cinic10` downloads it"):
        source.check()
    assert len(source.split(1, 0).test_inputs) == 5
    source.check()
    with pytest.raises(InputError, match=f"has fingerprint {fingerprint}; the study was made with 6ee4d0c9"):
        replace(DATASETS["cinic10"]).check()


@pytest.fixture
def tiny():
    root, words = "tiny-imagenet-200", "n01443537\tgoldfish, Carassius auratus\nn02124075\tEgyptian cat\nn9\tother\n"
    labels = ("n01443537", "n02124075")
    shades = {}  # of one colour each, which JPEG keeps
    files = {f"{root}/wnids.txt": "\n".join(labels).encode(), f"{root}/words.txt": words.encode()}
    for i, label in enumerate(labels):
        for j in range(3):
            name = f"{root}/train/{label}/images/{label}_{j}.JPEG"
            shades[name] = 40 * (3 * i + j)
    annotations = []
    for j, label in enumerate(reversed(labels)):
        shades[f"{root}/val/images/val_{j}.JPEG"] = 7 + j
        annotations.append(f"val_{j}.JPEG\t{label}\t0\t32\t44\t62")
    shades[f"{root}/test/images/test_0.JPEG"] = 99
    files[f"{root}/val/val_annotations.txt"] = "\n".join(annotations).encode()
    files[f"{root}/train/n01443537/n01443537_boxes.txt"] = b"n01443537_0.JPEG\t0\t0\t9\t9\n"
    for name, shade in shades.items():
        grey = name.endswith("_2.JPEG")
        files[name] = picture("JPEG", np.full((64, 64) if grey else (64, 64, 3), shade, np.uint8))
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.mkdir(f"{root}/train")
        for name, data in files.items():
            archive.writestr(name, data)
    return content.getvalue()


def test_tiny_imagenet_is_converted_with_its_val_part_as_test(served, monkeypatch, tmp_path, tiny):
    serve(served, monkeypatch, "tiny_imagenet", tiny)
    path = tmp_path / "tiny_imagenet.npz"
    fetch("tiny_imagenet", path, DATASETS["tiny_imagenet"].download)
    arrays = read_arrays(path)
    assert arrays["class_names"].tolist() == ["goldfish", "Egyptian cat"]
    assert arrays["train_labels"].tolist() == [0, 0, 0, 1, 1, 1]
    assert arrays["test_labels"].tolist() == [1, 0]
    assert arrays["train_images"].shape == (6, 64, 64, 3)
    assert arrays["train_images"][:, 5, 5, 1].tolist() == [0, 40, 80, 120, 160, 200]
    assert arrays["test_images"][:, 5, 5, 2].tolist() == [7, 8]


@pytest.mark.parametrize(("name", "reason"), [("cinic10", "not a gzip file"), ("tiny_imagenet", "not a zip file")])
def test_an_archive_that_is_none_is_one_sentence(served, monkeypatch, tmp_path, name, reason):
    serve(served, monkeypatch, name, b"text")
    path = tmp_path / "data" / f"{name}.npz"
    with pytest.raises(InputError, match=f"{name} could not be fetched: .*{reason}; .* by hand") as error:
        fetch(name, path, DATASETS[name].download)
    assert "\n" not in str(error.value)
    assert is_empty(path.parent)
