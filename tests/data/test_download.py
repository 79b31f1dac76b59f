"""The downloads, from tiny archives of the same layout on this machine."""

import gzip
import io
import pickle
import struct
from dataclasses import replace

import numpy as np
import pytest
from archives import is_empty, md5, tar_of

from lsr_core import InputError
from lsr_core._torchvision import import_torchvision
from lsr_core.data import DATASETS, Download, download
from lsr_core.data._uniform import read_arrays
from lsr_core.data.download import archive, fetch

RANDOM = np.random.default_rng(0)


@pytest.fixture
def packed(image_arrays):
    """The bytes of an archive from which a small set is made."""
    content = io.BytesIO()
    np.savez(content, **image_arrays)
    return content.getvalue()


def download_of(url, md5=None):
    """A set that is made of the archive at an address."""

    def convert(folder):
        with np.load(archive(url, folder, md5)) as arrays:
            return dict(arrays)

    return Download(convert, ("small.zip",))


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("other", r"small\.zip has MD5 [0-9a-f]{32}; it should have [0-9a-f]{32}"),
        ("cut", r"cut\.zip has MD5 [0-9a-f]{32}; it should have [0-9a-f]{32}"),
        ("absent", r"small\.zip: File not found"),
        ("no server", "[Rr]efused"),
        ("no archive", "pickled"),
    ],
)
def test_a_failed_download_is_one_sentence_and_leaves_nothing(served, tmp_path, packed, kind, reason):
    folder, address = served
    content = b"text" if kind == "no archive" else packed
    name = "cut.zip" if kind == "cut" else "small.zip"
    if kind != "absent":
        (folder / name).write_bytes(content + b"0" * (kind == "other"))
    where = "http://127.0.0.1:9" if kind == "no server" else address
    path = tmp_path / "data" / "small.npz"
    with pytest.raises(InputError, match=f"small could not be fetched: .*{reason}") as error:
        fetch("small", path, download_of(f"{where}/{name}", md5(content)))
    assert str(error.value).endswith(f"try again, or put small.zip into {path.parent} by hand")
    assert "\n" not in str(error.value)
    assert is_empty(path.parent)
    (folder / "small.zip").write_bytes(packed)
    fetch("small", path, download_of(f"{address}/small.zip", md5(packed)))
    assert read_arrays(path)["train_images"].shape == (60, 6, 5, 3)


def test_an_interrupted_download_leaves_nothing_and_a_killed_ones_rest_is_removed(served, tmp_path, packed):
    folder, address = served
    (folder / "small.zip").write_bytes(packed)
    path = tmp_path / "data" / "small.npz"

    def interrupted(folder):
        archive(f"{address}/small.zip", folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch("small", path, Download(interrupted))
    assert is_empty(path.parent)
    rest = path.parent / ".small.abc.part"
    rest.mkdir()
    (rest / "small.zip").write_bytes(packed[:100])
    fetch("small", path, download_of(f"{address}/small.zip"))
    assert not rest.exists()


def test_an_archive_put_there_by_hand_is_used_and_checked(tmp_path, packed):
    by_hand, path = tmp_path / "small.zip", tmp_path / "small.npz"
    download = download_of("http://127.0.0.1:9/small.zip", md5(packed))
    by_hand.write_bytes(packed[:-1])
    with pytest.raises(InputError, match=r"small\.zip has MD5"):
        fetch("small", path, download)
    assert by_hand.read_bytes() == packed[:-1]
    by_hand.write_bytes(packed)
    fetch("small", path, download)
    assert by_hand.read_bytes() == packed
    assert path.exists()


def test_a_file_that_is_there_is_not_fetched_again(tmp_path):
    path = tmp_path / "small.npz"
    path.write_bytes(b"mine")
    fetch("small", path, download_of("http://127.0.0.1:9/small.zip"))
    assert path.read_bytes() == b"mine"


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"mnist could not be fetched: .*(Not a directory|File exists)"):
        fetch("mnist", tmp_path / "file" / "mnist.npz", DATASETS["mnist"].download)


def test_an_archive_is_whole_and_checked(served, tmp_path):
    folder, address = served
    content = RANDOM.bytes(3_000_000)
    (folder / "thing.bin").write_bytes(content)
    for name, wanted in (("good", md5(content)), ("other", "0" * 32)):
        (tmp_path / name).mkdir()
        if name == "other":
            with pytest.raises(OSError, match="it should have 0000"):
                archive(f"{address}/thing.bin", tmp_path / name, wanted)
        else:
            assert archive(f"{address}/thing.bin", tmp_path / name, wanted).read_bytes() == content


@pytest.fixture
def datasets():
    import_torchvision()
    from torchvision import datasets

    return datasets


def cifar_batch(count, label, **more):
    pixels = RANDOM.integers(0, 256, (count, 3072), dtype=np.uint8)
    return {"data": pixels, label: [i % 2 for i in range(count)], **more}


def serve_cifar(served, monkeypatch, loader, batches, meta):
    """Let torchvision's loader load these batches and names."""
    folder, address = served
    files = {name: pickle.dumps(batch) for name, batch in {**batches, loader.meta["filename"]: meta}.items()}
    content = tar_of({f"{loader.base_folder}/{name}": data for name, data in files.items()})
    (folder / loader.filename).write_bytes(content)
    parts = [[[name, md5(files[name])] for name in batches if ("test" in name) == test] for test in (False, True)]
    monkeypatch.setattr(loader, "url", f"{address}/{loader.filename}")
    monkeypatch.setattr(loader, "tgz_md5", md5(content))
    monkeypatch.setattr(loader, "train_list", parts[0])
    monkeypatch.setattr(loader, "test_list", parts[1])
    monkeypatch.setattr(loader, "meta", loader.meta | {"md5": md5(files[loader.meta["filename"]])})


def test_cifar100_has_its_superclasses(served, monkeypatch, datasets):
    batches = {
        "train": cifar_batch(20, "fine_labels", coarse_labels=[1 - i % 2 for i in range(20)]),
        "test": cifar_batch(6, "fine_labels", coarse_labels=[1 - i % 2 for i in range(6)]),
    }
    meta = {"fine_label_names": ["apple", "bear"], "coarse_label_names": ["animals", "fruit"]}
    serve_cifar(served, monkeypatch, datasets.CIFAR100, batches, meta)
    source = replace(DATASETS["cifar100"], counts=(10, 10))
    with pytest.raises(InputError, match=r"cifar100\.npz has fingerprint"):
        source.split(1, 0)
    arrays = read_arrays(source.path)
    np.testing.assert_array_equal(
        arrays["train_images"], batches["train"]["data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    )
    assert arrays["test_labels"].tolist() == [0, 1] * 3
    assert arrays["test_superclass_labels"].tolist() == [1, 0] * 3
    assert arrays["class_names"].tolist() == ["apple", "bear"]


def test_cifar10_has_the_votes(served, monkeypatch, tmp_path, datasets):
    folder, address = served
    batches = {"data_batch_1": cifar_batch(20, "labels"), "test_batch": cifar_batch(6, "labels")}
    serve_cifar(served, monkeypatch, datasets.CIFAR10, batches, {"label_names": ["cat", "dog"]})
    np.save(folder / "votes.npy", np.arange(12.0).reshape(6, 2))
    monkeypatch.setattr(download, "VOTES_URL", f"{address}/votes.npy")
    fetch("cifar10", tmp_path / "cifar10.npz", DATASETS["cifar10"].download)
    arrays = read_arrays(tmp_path / "cifar10.npz")
    assert arrays["test_label_counts"].tolist() == np.arange(12).reshape(6, 2).tolist()
    assert arrays["train_labels"].tolist() == [0, 1] * 10
    (folder / datasets.CIFAR10.filename).write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"put cifar-10-python\.tar\.gz and cifar10h-counts\.npy into .* by hand"):
        fetch("cifar10", tmp_path / "again" / "cifar10.npz", DATASETS["cifar10"].download)
    assert is_empty(tmp_path / "again")


@pytest.mark.parametrize(("name", "loader"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
def test_grey_sets_get_a_channel(served, monkeypatch, tmp_path, datasets, name, loader):
    folder, address = served
    loader, resources, written = getattr(datasets, loader), [], {}
    for part, count in (("train", 12), ("t10k", 5)):
        images = RANDOM.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        written[part] = images
        labels = np.arange(count, dtype=np.uint8) % 10
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            head = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
            content = gzip.compress(head + array.tobytes())
            (folder / f"{part}-{kind}-ubyte.gz").write_bytes(content)
            resources.append((f"{part}-{kind}-ubyte.gz", md5(content)))
    monkeypatch.setattr(loader, "mirrors", [f"{address}/"])
    monkeypatch.setattr(loader, "resources", resources)
    fetch(name, tmp_path / f"{name}.npz", DATASETS[name].download)
    arrays = read_arrays(tmp_path / f"{name}.npz")
    np.testing.assert_array_equal(arrays["train_images"][..., 0], written["train"])
    assert arrays["test_labels"].tolist() == [0, 1, 2, 3, 4]
    assert arrays["class_names"][-1] == ("9" if name == "mnist" else "Ankle_boot")
    monkeypatch.setattr(loader, "resources", [(file, "0" * 32) for file, _ in resources])
    with pytest.raises(InputError, match=f"{name} could not be fetched: .* by hand"):
        fetch(name, tmp_path / "again" / f"{name}.npz", DATASETS[name].download)
    assert is_empty(tmp_path / "again")
