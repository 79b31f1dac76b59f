"""Images that users bring: sets with odd channels and classes, sizes that leave one, archives put in by hand."""

import pickle

import numpy as np
import pytest
import torch
from archives import md5, tar_of

from lsr_core import InputError, objective
from lsr_core._torchvision import import_torchvision
from lsr_core.augmentation import normalised
from lsr_core.data import DATASETS, dataset
from lsr_core.data.download import fetch
from lsr_core.data.images import channel_statistics
from lsr_core.models import ARCHITECTURES, Convnet, ImageNetwork, Perceptron
from lsr_core.run import Run
from lsr_core.schedule import Schedule

PLAIN = ImageNetwork("plain_cnn", 2)


@pytest.fixture
def own(tmp_path):
    """Makes a set of 60 images to train on and 12 to test, of the given labels, and returns its name."""

    def make(classes, train, test, side=28):
        random = np.random.default_rng(0)
        arrays = {"class_names": np.array([str(k) for k in range(classes)])}
        for part, labels in (("train", np.resize(train, 60)), ("test", np.resize(test, 12))):
            arrays[f"{part}_images"] = random.integers(0, 256, (len(labels), side, side, 1), dtype=np.uint8)
            arrays[f"{part}_labels"] = labels
        np.savez(tmp_path / "own.npz", **arrays)
        return str(tmp_path / "own.npz")

    return make


# An empty alpha channel, or grey saved as one colour: every input NaN, and the run "diverged at 1".
@pytest.mark.parametrize("value", [0, 255, 7])
def test_a_constant_channel_becomes_zero(value):
    images = torch.randint(256, (20, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    images[:, 1] = value
    mean, std = channel_statistics(images)
    assert std[1] == 1
    seen = normalised(images, mean, std)
    assert bool(seen.isfinite().all())
    torch.testing.assert_close(seen[:, 1], torch.zeros(20, 8, 8), atol=1e-4, rtol=0)
    torch.testing.assert_close(seen[:, 0].std(correction=0), torch.tensor(1.0), atol=1e-3, rtol=0)


# One bright pixel in a million: a deviation that is 0 to the digits that are kept.
def test_a_channel_that_is_almost_constant_stays_finite():
    images = torch.zeros(300, 1, 64, 64, dtype=torch.uint8)
    images[0, 0, 0, 0] = 1
    assert bool(normalised(images, *channel_statistics(images)).isfinite().all())


# A class that nobody tested, or nobody trained on, is a set like any other.
@pytest.mark.parametrize(("train", "test"), [([0, 1, 2], [0, 1]), ([0, 1], [0, 1, 2]), ([0, 1], [0, 1]), ([0], [2])])
def test_a_part_may_lack_a_class(own, train, test):
    name = own(3, train, test)
    split = dataset(name).split(50, 0)
    assert (dataset(name).classes, len(split.test_labels), len(split.validation_labels)) == (3, 12, 6)
    assert Run(name, 50, objective("lsr"), Schedule(0.1), 0, PLAIN).key


def test_a_part_of_the_classes_that_nobody_tested_is_refused(own):
    source = dataset(own(3, [0, 1, 2], [2]) + "/first-2")
    with pytest.raises(InputError, match=r"the test part of .*own.npz has none of the first 2 classes"):
        source.split(20, 0)


@pytest.mark.parametrize("classes", [200, 1000])
def test_mixtures_of_many_classes_are_data_sets(classes):
    run = Run(f"mixture-{classes}x10-16d-noise-1", 400, objective("lsr"), Schedule(0.1), 0)
    split = dataset(run.data).split(run.train, 0)
    assert split.test_posterior.shape == (5000, classes)
    assert int(split.test_labels.max()) < classes
    assert Run("tiny_imagenet", 90_000, objective("lsr"), Schedule(0.1), 0, ImageNetwork("resnet18")).key


# "Expected more than 1 value per channel when training", after the first epoch's other batches.
@pytest.mark.parametrize(("train", "batch"), [(41, 8), (50, 7), (53, 52), (1, 8), (10, 1)])
def test_a_batch_of_one_image_is_refused_where_the_run_is_made(own, train, batch):
    told = f"train is {train}: in batches of {batch} the last one has 1 example, .*; take a train or a batch_size"
    name, schedule = own(3, [0, 1, 2], [0, 1, 2]), Schedule(0.1, batch_size=batch)
    with pytest.raises(InputError, match=told):
        Run(name, train, objective("lsr"), schedule, 0, PLAIN)
    Run(name, train, objective("lsr"), schedule, 0, ImageNetwork("resnet8", 2))
    if batch > 1:
        Run(name, train + 1, objective("lsr"), schedule, 0, PLAIN)


@pytest.mark.slow
def test_of_the_networks_for_images_the_plain_one_alone_cannot_take_one():
    side = 28  # the smallest that they take
    failing = [name for name in ARCHITECTURES if not ImageNetwork(name).takes_one(3 * side**2)]
    assert failing == ["plain_cnn"]
    for name in ("plain_cnn", "resnet8"):
        network = ImageNetwork(name).build((3, side, side), 2, torch.Generator().manual_seed(0))
        try:
            network(torch.zeros(1, 3, side, side))
            takes = True
        except ValueError:
            takes = False
        assert takes == (name not in failing)


@pytest.mark.parametrize("channels", [(2,), (2, 2), (2, 2, 2), (2, 2, 2, 2)])
@pytest.mark.parametrize("side", [1, 2, 3, 4, 5, 8])
def test_small_convnets_say_whether_they_take_one(channels, side):
    network = Convnet(channels).stack(side**2, 2, [torch.Generator()])
    try:
        network(torch.zeros(1, 1, side**2))
        takes = True
    except ValueError:
        takes = False
    assert Convnet(channels).takes_one(side**2) == takes
    assert Perceptron().takes_one(side**2)


# A CIFAR archive, put in by hand and cut short on its way, was overwritten by a download that failed, too.
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_an_archive_put_in_by_hand_is_checked_first_and_left_alone(name, tmp_path, monkeypatch):
    import_torchvision()
    from torchvision import datasets

    loader = getattr(datasets, name.upper())
    monkeypatch.setattr(loader, "url", f"http://127.0.0.1:9/{loader.filename}")
    by_hand, wanted = tmp_path / loader.filename, loader.tgz_md5
    by_hand.write_bytes(b"cut short")
    with pytest.raises(InputError, match=f"has MD5 {md5(b'cut short')}; it should have {wanted}"):
        fetch(name, tmp_path / f"{name}.npz", DATASETS[name].download)
    assert by_hand.read_bytes() == b"cut short"
    assert [file.name for file in tmp_path.glob("[!.]*")] == [loader.filename]


def test_a_whole_archive_put_in_by_hand_is_used(tmp_path, monkeypatch):
    import_torchvision()
    from torchvision.datasets import CIFAR100

    batch = {"data": np.zeros((4, 3072), np.uint8), "fine_labels": [0, 1, 0, 1], "coarse_labels": [0, 0, 0, 0]}
    meta = {"fine_label_names": ["apple", "bear"], "coarse_label_names": ["things"]}
    files = {name: pickle.dumps(content) for name, content in (("train", batch), ("test", batch), ("meta", meta))}
    content = tar_of({f"{CIFAR100.base_folder}/{name}": data for name, data in files.items()})
    md5s = {name: md5(data) for name, data in files.items()}
    monkeypatch.setattr(CIFAR100, "url", f"http://127.0.0.1:9/{CIFAR100.filename}")
    monkeypatch.setattr(CIFAR100, "tgz_md5", md5(content))
    monkeypatch.setattr(CIFAR100, "train_list", [["train", md5s["train"]]])
    monkeypatch.setattr(CIFAR100, "test_list", [["test", md5s["test"]]])
    monkeypatch.setattr(CIFAR100, "meta", CIFAR100.meta | {"md5": md5s["meta"]})
    (tmp_path / CIFAR100.filename).write_bytes(content)
    fetch("cifar100", tmp_path / "cifar100.npz", DATASETS["cifar100"].download)
    assert (tmp_path / CIFAR100.filename).read_bytes() == content
    assert np.load(tmp_path / "cifar100.npz")["train_labels"].tolist() == [0, 1, 0, 1]
