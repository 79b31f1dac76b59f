import hashlib
import json
import os
import stat
import time
import warnings
from pathlib import Path

import pytest
import torch

from lsr_core import InputError, checkpoints, objective
from lsr_core.checkpoints import Checkpoint, RunLocks
from lsr_core.provenance import provenance
from lsr_core.run import NUMERICS, Run
from lsr_core.schedule import Schedule
from lsr_core.store import Record, Store

RUN = Run("digits", 100, objective("lsr"), Schedule(0.1), seed=0)


def record(run=RUN, accuracy=0.9):
    return Record(run.canonical(), {"accuracy": accuracy, "nll": None}, {"epoch": [1]}, None, 0.01, provenance())


def path_of(store, key=RUN.key):
    return store.folder / key[:2] / f"{key}.json"


def test_what_is_put_is_got(own_store):
    own_store.put(record())
    assert RUN.key in own_store
    assert own_store.get(RUN.key) == record()
    assert own_store.keys() == [RUN.key]
    assert list(own_store) == [record()]


def test_a_record_with_the_names_of_earlier_versions_is_read(own_store):
    content = vars(record())
    former = {{"provenance": "made", "projection": "planes"}.get(name, name): value for name, value in content.items()}
    checksum = hashlib.sha256(json.dumps(former, sort_keys=True).encode()).hexdigest()
    path_of(own_store).parent.mkdir(parents=True)
    path_of(own_store).write_text(json.dumps({**former, "checksum": checksum}))
    assert own_store.get(RUN.key) == record()


def test_the_key_in_the_store_is_the_runs():
    assert record().key == RUN.key


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: text[:0],
        lambda text: f"[{text}]",
        lambda text: text.replace('"accuracy": 0.9', '"accuracy": 0.99'),
        lambda text: text.replace('"seed": 0', '"seed": 1'),
        lambda text: text.replace('"checksum": "', '"checksum": "0'),
        lambda text: json.dumps({k: v for k, v in json.loads(text).items() if k != "checksum"}),
    ],
)
def test_a_damaged_record_is_reported_never_used_and_not_changed(own_store, damage):
    own_store.put(record())
    path = path_of(own_store)
    path.write_text(damage(path.read_text()))
    before = path.read_bytes()
    with pytest.raises(InputError, match=f"{RUN.key}.json is damaged.*lsr runs rm {RUN.key}") as caught:
        own_store.get(RUN.key)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before


def test_a_record_under_another_runs_name_is_damaged(own_store):
    own_store.put(record())
    other = "ab" + RUN.key[2:]
    path_of(own_store, other).parent.mkdir()
    path_of(own_store, other).write_bytes(path_of(own_store).read_bytes())
    with pytest.raises(InputError, match="is damaged"):
        own_store.get(other)


def test_a_damaged_record_can_be_removed(own_store):
    own_store.put(record())
    path_of(own_store).write_text("")
    own_store.remove(RUN.key)
    assert RUN.key not in own_store
    with pytest.raises(InputError, match="there is no record"):
        own_store.remove(RUN.key)


def test_writing_leaves_nothing_half_written(own_store, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(
        InputError, match=r"cannot be written \(No space left on device\); finished runs are kept; make"
    ):
        own_store.put(record())
    monkeypatch.undo()
    assert own_store.keys() == []
    assert [p for p in own_store.folder.rglob("*") if p.is_file()] == []


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        Store(tmp_path / "file" / "records").check_writable()


def test_a_folder_without_permission_is_refused(tmp_path):
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    if os.access(tmp_path, os.W_OK):
        pytest.skip("the superuser may write everywhere")
    with pytest.raises(InputError, match="cannot be written"):
        Store(tmp_path / "records").check_writable()


def test_provenance_says_where_and_with_what():
    made = provenance()
    assert {"python", "torch", "numpy", "processor", "simd", "isa", "sources", "commit"} <= made.keys()
    assert made["numerics"] == NUMERICS
    assert made["simd"] == torch.backends.cpu.get_cpu_capability()
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    assert made["isa"] != "AVX2" or " avx2" in flags
    assert (made["isa"] == "AMX") == (" amx_tile" in flags)
    assert len(made["sources"]) == 16


def test_the_store_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("LSR_STORE", str(tmp_path / "here"))
    assert Store().folder == tmp_path / "here"
    monkeypatch.delenv("LSR_STORE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert Store().folder == tmp_path / "lsr_core" / "records"


# Weights, states and locks.


def test_no_part_of_a_file_is_left_when_the_disk_is_full(own_store, monkeypatch):
    monkeypatch.setattr("pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(InputError, match="cannot be written"):
        own_store.put_weights("ab" * 10, 3, {"w": torch.zeros(3)})
    monkeypatch.undo()
    assert [path for path in own_store.folder.rglob("*") if path.is_file()] == []


def test_weights_are_kept_and_a_damaged_file_is_told(own_store):
    tensors = {"b": torch.randn(3, 4), "a": torch.arange(3)}
    own_store.put_weights("ab" * 10, 3, tensors)
    found = own_store.weights("ab" * 10, 3)
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
    path = own_store.weights_path("ab" * 10, 3)
    content = path.read_bytes()
    for damaged in (content[:-5], content[:-1] + bytes([content[-1] ^ 1]), b""):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="were damaged and are removed; the same command trains them again"):
            own_store.weights("ab" * 10, 3)
        assert not path.exists()


def test_states_are_written_no_oftener_than_stated(own_store, monkeypatch):
    checkpoint = Checkpoint(own_store, [RUN])
    assert not checkpoint.is_due()
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + checkpoints.SECONDS)
    assert checkpoint.is_due()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert checkpoint.load({"threads": 1}) is None


def test_a_lock_is_one_processes_until_it_is_released(own_store):
    with RunLocks(own_store) as mine, RunLocks(own_store) as yours:
        assert mine.lock("a" * 20)
        assert not yours.lock("a" * 20)
        assert yours.lock("b" * 20)
        mine.release("a" * 20)
        assert yours.lock("a" * 20)
    assert list((own_store.folder / "locks").iterdir()) == []


def test_an_error_releases_locks(own_store):
    def fail():
        with RunLocks(own_store) as locks:
            locks.lock("a" * 20)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    with RunLocks(own_store) as locks:
        assert locks.lock("a" * 20)


def test_weights_that_are_not_there_are_one_sentence(tmp_path):
    with pytest.raises(InputError, match=f"there are no weights of run {'0' * 20} after epoch 3 in"):
        Store(tmp_path).weights("0" * 20, 3)


def test_a_folder_may_be_named_from_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Store("~/results").folder == tmp_path / "results"
