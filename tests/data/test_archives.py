"""The downloads, from tiny archives of the same layout on this machine."""

import gzip
import hashlib
import http.server
import io
import pickle
import struct
import tarfile
import threading
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from lsr_core import InputError
from lsr_core._torchvision import import_torchvision
from lsr_core.data import DATASETS, archives
from lsr_core.data._uniform import read_arrays
from lsr_core.data.archives import ARCHIVES, Archive, download, fetch

RANDOM = np.random.default_rng(0)


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; of a file named cut.* only the first half, though it promises all."""

    def log_message(self, *_):
        pass

    def copyfile(self, source, outputfile):
        content = source.read()
        half = "cut" in self.path
        outputfile.write(content[: len(content) // 2] if half else content)


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A folder and the address under which its files are served."""
    folder = tmp_path / "served"
    folder.mkdir()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), lambda *arguments: _Handler(*arguments, directory=folder)
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def md5(content):
    return hashlib.md5(content).hexdigest()


def serve(served, monkeypatch, name, content):
    """Let a set's archive be this one."""
    folder, address = served
    file_name = ARCHIVES[name].file_name
    (folder / file_name).write_bytes(content)
    monkeypatch.setitem(ARCHIVES, name, Archive(f"{address}/{file_name}", md5(content)))


def picture(kind, pixels):
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, kind)
    return content.getvalue()


def tar_of(files):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
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
    fetch("cinic10", path)
    arrays = read_arrays(path)
    assert arrays["class_names"].tolist() == ["airplane", "truck"]
    assert arrays["source"] == f"{md5(content)}-1"
    for part, count in (("train", 4), ("test", 5)):
        assert arrays[f"{part}_images"].shape == (count, 32, 32, 3)
        found = zip(arrays[f"{part}_labels"], arrays[f"{part}_images"], strict=True)
        expected = [(name, pixels) for name, pixels in pictures.items() if name.startswith(f"./{part}")]
        for (label, image), (name, pixels) in zip(found, expected, strict=True):
            assert label == ("truck" in name)
            np.testing.assert_array_equal(image, pixels if pixels.ndim == 3 else pixels[..., None].repeat(3, -1))
    assert [file.name for file in path.parent.iterdir() if file.name[0] != "."] == ["cinic10.npz"]


def test_a_converted_set_knows_its_archive(served, monkeypatch, cinic):
    serve(served, monkeypatch, "cinic10", cinic[1])
    fingerprint = ARCHIVES["cinic10"].fingerprint
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
    fetch("tiny_imagenet", path)
    arrays = read_arrays(path)
    assert arrays["class_names"].tolist() == ["goldfish", "Egyptian cat"]
    assert arrays["train_labels"].tolist() == [0, 0, 0, 1, 1, 1]
    assert arrays["test_labels"].tolist() == [1, 0]
    assert arrays["train_images"].shape == (6, 64, 64, 3)
    assert arrays["train_images"][:, 5, 5, 1].tolist() == [0, 40, 80, 120, 160, 200]
    assert arrays["test_images"][:, 5, 5, 2].tolist() == [7, 8]


def nothing_left(folder):
    return [file.name for file in folder.iterdir() if not file.name.endswith(".lock")] == []


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("other", r"CINIC-10\.tar\.gz has MD5 [0-9a-f]{32}; it should have [0-9a-f]{32}"),
        ("cut", r"cut\.tar\.gz ended after \d+ of \d+ bytes"),
        ("absent", r"CINIC-10\.tar\.gz: File not found"),
        ("no server", "[Rr]efused"),
        ("no archive", "not a gzip file"),
    ],
)
def test_a_failed_download_is_one_sentence_and_leaves_nothing(served, monkeypatch, tmp_path, cinic, kind, reason):
    folder, address = served
    serve(served, monkeypatch, "cinic10", b"text" if kind == "no archive" else cinic[1])
    good = ARCHIVES["cinic10"]
    if kind == "other":
        (folder / good.file_name).write_bytes(cinic[1] + b"0")
    if kind == "cut":
        (folder / "cut.tar.gz").write_bytes(cinic[1])
        monkeypatch.setitem(ARCHIVES, "cinic10", good._replace(url=f"{address}/cut.tar.gz"))
    if kind == "absent":
        (folder / good.file_name).unlink()
    if kind == "no server":
        monkeypatch.setitem(ARCHIVES, "cinic10", good._replace(url="http://127.0.0.1:9/CINIC-10.tar.gz"))
    path = tmp_path / "data" / "cinic10.npz"
    with pytest.raises(InputError, match=f"cinic10 could not be fetched: .*{reason}") as error:
        fetch("cinic10", path)
    assert str(error.value).endswith(f"try again, or put CINIC-10.tar.gz into {path.parent} by hand")
    assert "\n" not in str(error.value)
    assert nothing_left(path.parent)
    monkeypatch.setitem(ARCHIVES, "cinic10", good)
    serve(served, monkeypatch, "cinic10", cinic[1])
    fetch("cinic10", path)
    assert read_arrays(path)["train_images"].shape == (4, 32, 32, 3)


def test_an_interrupted_download_leaves_nothing_and_a_killed_ones_rest_is_removed(served, monkeypatch, tmp_path, cinic):
    serve(served, monkeypatch, "cinic10", cinic[1])
    path = tmp_path / "data" / "cinic10.npz"

    def interrupted(_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(archives, "_pixels", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fetch("cinic10", path)
    assert nothing_left(path.parent)
    rest = path.parent / ".cinic10.abc.part"
    rest.mkdir()
    (rest / "CINIC-10.tar.gz").write_bytes(cinic[1][:100])
    fetch("cinic10", path)
    assert not rest.exists()


def test_an_archive_put_there_by_hand_is_used_and_checked(monkeypatch, tmp_path, cinic):
    archive = ARCHIVES["cinic10"]._replace(url="http://127.0.0.1:9/CINIC-10.tar.gz", md5=md5(cinic[1]))
    monkeypatch.setitem(ARCHIVES, "cinic10", archive)
    by_hand, path = tmp_path / "CINIC-10.tar.gz", tmp_path / "cinic10.npz"
    by_hand.write_bytes(cinic[1][:-1])
    with pytest.raises(InputError, match=r"CINIC-10\.tar\.gz has MD5"):
        fetch("cinic10", path)
    by_hand.write_bytes(cinic[1])
    fetch("cinic10", path)
    assert by_hand.exists()
    assert path.exists()


def test_a_file_that_is_there_is_not_fetched_again(tmp_path):
    path = tmp_path / "cinic10.npz"
    path.write_bytes(b"mine")
    fetch("cinic10", path)
    assert path.read_bytes() == b"mine"


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"mnist could not be fetched: .*(Not a directory|File exists)"):
        fetch("mnist", tmp_path / "file" / "mnist.npz")


def test_a_download_is_whole_and_checked(served, tmp_path):
    folder, address = served
    content = RANDOM.bytes(3_000_000)
    (folder / "thing.bin").write_bytes(content)
    download(f"{address}/thing.bin", tmp_path / "thing.bin", md5(content))
    assert (tmp_path / "thing.bin").read_bytes() == content
    with pytest.raises(OSError, match="it should have 0000"):
        download(f"{address}/thing.bin", tmp_path / "thing.bin", "0" * 32)


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
    assert arrays["superclass_names"].tolist() == ["animals", "fruit"]
    assert arrays["class_names"].tolist() == ["apple", "bear"]


def test_cifar10_has_the_votes(served, monkeypatch, tmp_path, datasets):
    folder, address = served
    batches = {"data_batch_1": cifar_batch(20, "labels"), "test_batch": cifar_batch(6, "labels")}
    serve_cifar(served, monkeypatch, datasets.CIFAR10, batches, {"label_names": ["cat", "dog"]})
    np.save(folder / "votes.npy", np.arange(12.0).reshape(6, 2))
    monkeypatch.setattr(archives, "_VOTES", Archive(f"{address}/votes.npy"))
    fetch("cifar10", tmp_path / "cifar10.npz")
    arrays = read_arrays(tmp_path / "cifar10.npz")
    assert arrays["test_label_counts"].tolist() == np.arange(12).reshape(6, 2).tolist()
    assert arrays["train_labels"].tolist() == [0, 1] * 10
    (folder / datasets.CIFAR10.filename).write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"put cifar-10-python\.tar\.gz and cifar10h-counts\.npy into .* by hand"):
        fetch("cifar10", tmp_path / "again" / "cifar10.npz")
    assert nothing_left(tmp_path / "again")


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
    fetch(name, tmp_path / f"{name}.npz")
    arrays = read_arrays(tmp_path / f"{name}.npz")
    np.testing.assert_array_equal(arrays["train_images"][..., 0], written["train"])
    assert arrays["test_labels"].tolist() == [0, 1, 2, 3, 4]
    assert arrays["class_names"][-1] == ("9" if name == "mnist" else "Ankle_boot")
    monkeypatch.setattr(loader, "resources", [(file, "0" * 32) for file, _ in resources])
    with pytest.raises(InputError, match=f"{name} could not be fetched: .* by hand"):
        fetch(name, tmp_path / "again" / f"{name}.npz")
    assert nothing_left(tmp_path / "again")
