import os
from dataclasses import replace

import numpy as np
import pytest
import torch

from lsr_core import InputError, objective
from lsr_core.data import DATASETS, Images, Subset, dataset
from lsr_core.data._uniform import read_images
from lsr_core.models import ImageNetwork
from lsr_core.run import Run
from lsr_core.schedule import Schedule

NAMES = [name for name, source in DATASETS.items() if isinstance(source, Images)]


@pytest.fixture
def own(image_arrays, tmp_path):
    path = tmp_path / "own.npz"
    np.savez(path, **image_arrays)
    return str(path)


def rows(images):
    return {image.numpy().tobytes() for image in images}


def test_a_users_file_is_described_by_what_it_holds(own, image_arrays):
    source = dataset(own)
    assert (source.name, source.classes, source.input_dim, source.image_shape) == (own, 3, 90, (3, 6, 5))
    assert (source.counts, source.validation, source.max_train) == ((20, 20, 20), 6, 54)
    assert source.superclasses.tolist() == [0, 0, 1]
    pixels = image_arrays["train_images"].reshape(-1, 3) / 255
    np.testing.assert_allclose(source.mean, pixels.mean(0), atol=1e-4)
    np.testing.assert_allclose(source.std, pixels.std(0), atol=1e-4)
    assert source.fingerprint == read_images(source.path).fingerprint


def test_training_and_validation_are_disjoint_stratified_and_fixed_by_the_seed(own, image_arrays):
    source = dataset(own)
    split, again, other = (source.split(27, seed) for seed in (0, 0, 1))
    assert split.train_inputs.dtype == torch.uint8
    assert split.train_labels.bincount().tolist() == [9] * 3
    assert split.validation_labels.bincount().tolist() == [2] * 3
    assert not rows(split.train_inputs) & rows(split.validation_inputs)
    everything = torch.from_numpy(image_arrays["train_images"]).permute(0, 3, 1, 2).contiguous()
    assert rows(split.train_inputs) | rows(split.validation_inputs) <= rows(everything)
    assert all(torch.equal(a, b) for a, b in zip(split, again, strict=True))
    assert rows(split.train_inputs) != rows(other.train_inputs)
    assert torch.equal(split.test_inputs, other.test_inputs)
    assert torch.equal(source.split(54, 0).train_inputs[:27], split.train_inputs)
    assert torch.equal(source.split(54, 0).validation_inputs, split.validation_inputs)


def test_the_votes_shares_are_the_test_posterior(own, image_arrays):
    split = dataset(own).split(1, 0)
    torch.testing.assert_close(split.test_posterior.sum(-1), torch.ones(12, dtype=torch.float64))
    shares = image_arrays["test_label_counts"] / image_arrays["test_label_counts"].sum(-1, keepdims=True)
    assert {tuple(row) for row in split.test_posterior.tolist()} == {tuple(row) for row in shares.tolist()}


def test_an_image_that_nobody_thinks_is_of_the_first_classes_has_no_posterior_among_them(own, image_arrays):
    image_arrays["test_label_counts"][0] = [0, 0, 7]
    np.savez(own, **image_arrays)
    source = Images.of_file(own)
    whole, part = source.split(1, 0), Subset("part", source, 2).split(1, 0)
    kept = whole.test_posterior[whole.test_labels < 2]
    assert part.test_posterior.sum(-1).sort().values.tolist() == pytest.approx([0] + [1] * 7)
    for row, shares in zip(part.test_posterior, kept, strict=True):
        torch.testing.assert_close(row * shares[:2].sum(), shares[:2])


@pytest.mark.parametrize(
    ("part", "counts"), [("/first-2", [18, 18]), ("/stratified", [6] * 3), ("/tail-4", [10, 5, 3])]
)
def test_parts_of_images(own, part, counts):
    source = dataset(own + part)
    split = source.split(sum(counts), 0)
    assert split.train_labels.bincount().tolist() == counts
    assert split.validation_labels.bincount().tolist() == [2] * len(counts)
    assert not rows(split.train_inputs) & rows(split.validation_inputs)
    assert split.test_inputs.shape == (4 * len(counts), 3, 6, 5)
    assert split.test_posterior.shape == (4 * len(counts), len(counts))
    assert source.superclasses.tolist() == [0, 0, 1][: len(counts)]
    assert (source.image_shape, source.mean) == ((3, 6, 5), dataset(own).mean)


def test_a_file_that_was_changed_after_it_was_named_is_refused(own, image_arrays):
    source = Images.of_file(own)
    image_arrays["train_images"][0, 0, 0, 0] ^= 1
    np.savez(own, **image_arrays)
    with pytest.raises(InputError, match=f"has fingerprint .*; the study was made with {source.fingerprint}; start"):
        source.split(10, 0)


def test_too_few_images_are_refused(image_arrays, tmp_path):
    few = {name: array[:9] if name.startswith("train") else array for name, array in image_arrays.items()}
    np.savez(tmp_path / "few.npz", **few)
    with pytest.raises(InputError, match=r"few\.npz has 9 training images; a tenth is for validation, so 10 or more"):
        dataset(str(tmp_path / "few.npz"))


def test_a_class_without_training_images_is_allowed(image_arrays, tmp_path):
    image_arrays["class_names"] = np.array(["ant", "bee", "cat", "dog"])
    for name in [name for name in image_arrays if "superclass" in name or "counts" in name]:
        image_arrays.pop(name)
    np.savez(tmp_path / "gap.npz", **image_arrays)
    source = dataset(str(tmp_path / "gap.npz"))
    assert source.counts == (20, 20, 20, 0)
    assert source.split(54, 0).train_labels.bincount(minlength=4).tolist() == [18, 18, 18, 0]
    assert source.superclasses is source.split(1, 0).test_posterior is None


@pytest.mark.parametrize("name", NAMES)
def test_a_named_sets_key_needs_no_data(name):
    source = dataset(name)
    assert not source.path.exists()
    run = Run(name, source.max_train, objective("lsr"), Schedule(0.1), seed=0, network=ImageNetwork("resnet8"))
    assert run.canonical()["data"] == {"name": name, "fingerprint": source.fingerprint, "train": source.max_train}
    assert len(source.mean) == len(source.std) == source.image_shape[0]


def test_other_data_under_a_known_name_is_refused(own):
    source = replace(DATASETS["cifar100"])
    source.path.parent.mkdir(parents=True)
    os.link(own, source.path)
    for use in (source.check, lambda: source.split(10, 0), lambda: source.superclasses):
        with pytest.raises(InputError, match=r"cifar100\.npz has fingerprint .*; the study was made with e86726c5"):
            use()


def test_other_votes_under_a_known_name_are_refused(own):
    rows = read_images(dataset(own).path)
    known = Images("known", (20, 20, 20), (3, 6, 5), rows.content, (0.5,) * 3, (0.2,) * 3, rows.votes_content)
    known.path.parent.mkdir(parents=True)
    os.link(own, known.path)
    known.check()
    with pytest.raises(InputError, match="remove it, and `lsr data fetch known` makes it anew"):
        replace(known, votes="0" * 16).check()


REAL = [
    "mnist",
    "fashion_mnist",
    pytest.param("cifar10", marks=pytest.mark.slow),
    pytest.param("cifar100", marks=pytest.mark.slow),
]


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_the_real_sets_are_what_the_study_was_made_with(unpacked, monkeypatch, name):
    monkeypatch.setenv("LSR_DATA", str(unpacked(name)))
    source = replace(DATASETS[name])  # with rows of its own
    split = source.split(1000, 0)
    largest = max(source.counts) / sum(source.counts)
    assert split.train_labels.bincount().max() == pytest.approx(1000 * largest, abs=2)
    assert split.validation_inputs.shape == (source.validation, *source.image_shape)
    assert len(split.test_inputs) == 10_000
    found = read_images(source.path).train_images.double().mean((0, 2, 3)) / 255
    np.testing.assert_allclose(found, source.mean, atol=1e-4)
    assert (source.superclasses is not None) == (name == "cifar100")
    assert (split.test_posterior is not None) == (name == "cifar10")


def test_a_file_that_was_changed_is_another_data_set(image_arrays, tmp_path):
    path = tmp_path / "own.npz"
    np.savez(path, **image_arrays)
    before = dataset(str(path)).fingerprint
    assert dataset(str(path)) is dataset(str(path))
    np.savez(path, **{**image_arrays, "train_images": image_arrays["train_images"] // 2})
    assert dataset(str(path)).fingerprint != before
