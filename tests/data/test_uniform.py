import numpy as np
import pytest
import torch

from lsr_core import InputError
from lsr_core.data._uniform import read_arrays, read_images


def saved(path, arrays, **changes):
    np.savez(path, **{name: array for name, array in {**arrays, **changes}.items() if array is not None})
    return path


def test_images_labels_superclasses_and_votes_stay_together(image_arrays, tmp_path):
    rows = read_images(saved(tmp_path / "own.npz", image_arrays))
    assert rows.train_images.shape == (60, 3, 6, 5)
    assert rows.train_images.is_contiguous()
    assert rows.class_names == ("ant", "bee", "cat")
    assert rows.superclasses.tolist() == [0, 0, 1]
    for image, label, votes in zip(rows.test_images, rows.test_labels, rows.votes, strict=True):
        (place,) = np.flatnonzero((image_arrays["test_images"] == image.permute(1, 2, 0).numpy()).all((1, 2, 3)))
        assert label == image_arrays["test_labels"][place]
        assert votes.tolist() == image_arrays["test_label_counts"][place].tolist()


def test_the_order_of_rows_does_not_matter(image_arrays, tmp_path):
    first = read_images(saved(tmp_path / "own.npz", image_arrays))
    random = np.random.default_rng(1)
    for part, count in (("train", 60), ("test", 12)):
        order = random.permutation(count)
        for name in image_arrays:
            if name.startswith(part):
                image_arrays[name] = image_arrays[name][order]
    second = read_images(saved(tmp_path / "own.npz", image_arrays))
    assert first.fingerprint == second.fingerprint
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True) if isinstance(a, torch.Tensor))


@pytest.mark.parametrize(
    "name", ["train_images", "train_labels", "test_images", "test_labels", "superclasses", "test_label_counts"]
)
def test_every_change_changes_the_fingerprint(image_arrays, tmp_path, name):
    before = read_images(saved(tmp_path / "own.npz", image_arrays))
    if name == "superclasses":
        for part in ("train", "test"):
            image_arrays[f"{part}_superclass_labels"] = 1 - image_arrays[f"{part}_superclass_labels"]
    elif name.endswith("labels"):
        for other in [other for other in image_arrays if other.endswith("superclass_labels")]:
            image_arrays.pop(other)
        before = read_images(saved(tmp_path / "own.npz", image_arrays))
        image_arrays[name] = (image_arrays[name] + 1) % 3
    else:
        image_arrays[name].flat[-1] ^= 1
    after = read_images(saved(tmp_path / "own.npz", image_arrays))
    assert before.fingerprint != after.fingerprint
    assert (before.content == after.content) == (name == "test_label_counts")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_labels": None}, "has no train_labels; an image set needs train_images, "),
        ({"train_images": np.zeros((60, 6, 5), np.uint8)}, r"train_images is uint8 \[60, 6, 5\]; it must be uint8"),
        ({"train_images": np.zeros((60, 6, 5, 3))}, r"train_images is float64 \[60, 6, 5, 3\]; it must be uint8"),
        ({"test_images": np.zeros((0, 6, 5, 3), np.uint8)}, "one image or more"),
        ({"test_images": np.zeros((12, 6, 6, 3), np.uint8)}, r"test images are \(6, 6, 3\); they must be \(6, 5, 3\)"),
        ({"train_labels": np.zeros(60, np.int32)}, r"train_labels is int32 \[60\]; it must be int64 \[60\]"),
        ({"train_labels": np.zeros(59, np.int64)}, "one for each image"),
        ({"test_labels": np.full(12, 3)}, "test_labels are 3 to 3; they must lie in 0 to 2"),
        ({"test_labels": np.full(12, -1)}, "test_labels are -1 to -1; they must lie in 0 to 2"),
        ({"class_names": np.array([1, 2, 3])}, "class_names is int64 .*; it must be text"),
        ({"class_names": np.array(["ant"])}, "class_names has 1 names; classification needs 2"),
        ({"class_names": np.array(["ant", None])}, "is damaged or no .npz file of plain arrays"),
        ({"test_label_counts": np.zeros((12, 3), np.int64)}, "a vote or more for each image"),
        ({"test_label_counts": np.ones((12, 2), np.int64)}, r"test_label_counts is int64 \[12, 2\]"),
        ({"train_superclass_labels": np.arange(60) % 2}, "give some class no superclass, or several"),
        ({"test_superclass_labels": np.arange(11)}, "superclass labels is int64"),
    ],
)
def test_a_bad_file_is_one_sentence(image_arrays, tmp_path, changes, message):
    path = saved(tmp_path / "own.npz", image_arrays, **changes)
    with pytest.raises(InputError, match=message) as error:
        read_images(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("damage", ["cut", "flipped", "text", "empty", "npy"])
def test_a_damaged_file_is_one_sentence(image_arrays, tmp_path, damage):
    path = saved(tmp_path / "own.npz", image_arrays)
    content = bytearray(path.read_bytes())
    content[2000] ^= 1
    damaged = {"cut": path.read_bytes()[:3000], "flipped": bytes(content), "text": b"images", "empty": b""}
    if damage == "npy":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    else:
        path.write_bytes(damaged[damage])
    with pytest.raises(InputError, match=r"is damaged or no \.npz file of plain arrays"):
        read_arrays(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"there is no file .*own.npz"):
        read_images(tmp_path / "own.npz")


def test_the_first_rows_are_of_all_classes(image_arrays, tmp_path):
    """However the file is sorted: curves are measured on the first test images."""
    images = np.random.default_rng(1).integers(0, 256, (300, 6, 5, 3), dtype=np.uint8)
    several = {"test_images": images, "test_labels": np.repeat(np.arange(3), 100)}
    none = dict.fromkeys(("test_label_counts", "train_superclass_labels", "test_superclass_labels"))
    rows = read_images(saved(tmp_path / "own.npz", image_arrays, **several, **none))
    assert rows.test_labels[:60].bincount().min() >= 8
