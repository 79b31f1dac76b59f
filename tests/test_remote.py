"""A store at an address, held on a real S3 server of this machine."""

import json
import pickle
import threading

import pytest

fsspec = pytest.importorskip("fsspec")
pytest.importorskip("s3fs")
moto_server = pytest.importorskip("moto.server")

from click.testing import CliRunner  # noqa: E402
from test_execute import kd, runs  # noqa: E402
from test_resume import Stopped, stated  # noqa: E402
from test_store import RUN, record  # noqa: E402

from lsr_core import InputError, checkpoints, files, remote  # noqa: E402
from lsr_core.checkpoints import Checkpoint  # noqa: E402
from lsr_core.execute import execute  # noqa: E402
from lsr_core.store import Store  # noqa: E402
from study.cli import main  # noqa: E402

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server():
    """The address of an S3 server."""
    own = moto_server.ThreadedMotoServer("127.0.0.1", 0)
    own.start()
    yield "http://{}:{}".format(*own.get_host_and_port())
    own.stop()


@pytest.fixture
def s3(server, monkeypatch, tmp_path):
    """An empty store on the server, which the environment names, and whose cache on this machine is empty."""
    for name, value in {
        "AWS_ENDPOINT_URL": server,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "LSR_CACHE": str(tmp_path / "cache"),
        "LSR_STORE": f"s3://lsr-{tmp_path.name.replace('_', '-')[:40]}/records",
        "no_proxy": "127.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    own = Store()
    own.files.storage.mkdir(own.files._root.partition("/")[0])
    return own


def elsewhere(monkeypatch, tmp_path, name="elsewhere"):
    """The same store as another machine sees it, whose cache is empty."""
    monkeypatch.setenv("LSR_CACHE", str(tmp_path / name))
    return Store()


def test_an_address_is_a_store_like_a_folder(s3, tmp_path, monkeypatch):
    made = execute(kd([0, 1]), s3)
    there = elsewhere(monkeypatch, tmp_path)
    assert len(there.keys()) == 4
    assert there.folder != s3.folder
    assert execute(kd([0, 1]), there) == made
    assert stated(made) == stated(execute(kd([0, 1]), Store(tmp_path / "folder")))
    assert execute(kd([0], alpha=0.9), there)[0].key in s3  # its teacher's weights came from there
    there.remove(made[0].key)
    assert made[0].key not in there


def test_two_that_make_the_same_run_leave_the_first_record(s3, tmp_path, monkeypatch):
    stores = [s3, *(elsewhere(monkeypatch, tmp_path, str(i)) for i in range(7))]
    put = [threading.Thread(target=own.put, args=(record(accuracy=i / 10),)) for i, own in enumerate(stores)]
    for thread in put:
        thread.start()
    for thread in put:
        thread.join()
    seen = [own.get(RUN.key) for own in stores]
    assert all(found == seen[0] for found in seen)
    s3.put(record(accuracy=0.99))
    assert elsewhere(monkeypatch, tmp_path, "last").get(RUN.key) == seen[0]
    assert s3.keys() == [RUN.key]


def test_a_record_torn_on_the_way_is_fetched_again(s3, tmp_path, monkeypatch):
    s3.put(record())
    there = elsewhere(monkeypatch, tmp_path)
    real, torn = there.files.storage.cat_file, []

    def tearing(path):
        torn.append(path)
        return real(path)[: 100 if len(torn) == 1 else None]

    monkeypatch.setattr(there.files.storage, "cat_file", tearing)
    assert there.get(RUN.key) == record()
    assert len(torn) == 2
    there.record_path(RUN.key).write_bytes(b"{")  # the cache of this machine, after a crash
    assert there.get(RUN.key) == record()
    assert there.get(RUN.key) == record()
    assert len(torn) == 3


def test_a_record_that_is_damaged_there_is_told_and_not_changed(s3):
    at = s3.files.at(s3.record_path(RUN.key))
    s3.files.storage.pipe_file(at, b"{")
    with pytest.raises(InputError, match=f"{RUN.key}.json is damaged"):
        s3.get(RUN.key)
    assert s3.files.storage.cat_file(at) == b"{"


def test_a_full_disk_of_one_machine_loses_nothing(s3, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(remote, "write_whole", full)
    monkeypatch.setattr(files, "write_whole", full)
    made = execute(kd([0]), s3)
    assert not list(s3.folder.rglob("*.json"))
    monkeypatch.undo()
    assert stated(made) == stated(execute(kd([0]), Store(tmp_path / "folder")))


def test_a_state_is_gone_on_with_on_another_machine(s3, tmp_path, monkeypatch):
    def save_and_stop(self, *arguments):
        real(self, *arguments)
        raise Stopped

    real = Checkpoint.save
    monkeypatch.setattr(checkpoints, "SECONDS", 0)
    monkeypatch.setattr(Checkpoint, "save", save_and_stop)
    (run,) = kd([0])[0].teacher.run.runs([0])
    with pytest.raises(Stopped):
        execute([run], s3)
    monkeypatch.setattr(Checkpoint, "save", real)
    (made,) = execute([run], elsewhere(monkeypatch, tmp_path))
    assert made.provenance["resumed"]
    assert stated([made]) == stated(execute([run], Store(tmp_path / "folder")))
    assert not s3.files.find("checkpoints/*.state")


def test_a_store_travels_to_a_machine_with_another_cache(s3, tmp_path, monkeypatch):
    sent = pickle.dumps(s3)
    monkeypatch.setenv("LSR_CACHE", str(tmp_path / "there"))
    assert pickle.loads(sent).folder.is_relative_to(tmp_path / "there")
    assert pickle.loads(sent).place == s3.place


@pytest.mark.usefixtures("s3")
@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("s3://no-such-bucket/records", "results at s3://no-such-bucket/records cannot be used"),
        ("nosuch://bucket", "results at nosuch://bucket cannot be used"),
    ],
)
def test_an_address_that_cannot_be_used_is_told_before_training(address, message):
    with pytest.raises(InputError, match=message) as caught:
        execute(runs(1), Store(address))
    assert "\n" not in str(caught.value)


def test_all_runs_are_looked_up_in_one_question(s3, monkeypatch):
    s3.put(record())
    asked = []
    monkeypatch.setattr(s3.files.storage, "exists", lambda path: asked.append(path))
    assert s3.present([RUN.key, "0" * 20]) == {RUN.key}
    assert not asked
    assert json.dumps(s3.keys()) == json.dumps([RUN.key])


def test_runs_are_listed_from_an_address(s3, tmp_path, monkeypatch):
    s3.put(record())
    elsewhere(monkeypatch, tmp_path)
    listed = CliRunner().invoke(main, ["runs", "list"]).output
    assert listed.startswith(RUN.key)
    assert "90.00 %" in listed
