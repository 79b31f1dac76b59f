import json
import warnings

import pytest
import torch

from lsr_core import InputError, checkpoints, objective, training
from lsr_core.checkpoints import Checkpoint, Weights
from lsr_core.execute import execute
from lsr_core.run import Run
from lsr_core.schedule import Schedule
from lsr_core.store import Store

RUNS = [Run("digits", 50, objective("lsr"), Schedule(0.1, epochs=3), seed) for seed in range(3)]


class Stopped(Exception):
    """What ends a training in the middle."""


@pytest.fixture
def interrupted(own_store, monkeypatch):
    """The store after a training of `RUNS` that stopped after its third step's state was written."""
    saved = []

    def save_and_stop(self, state, threads):
        real(self, state, threads)
        saved.append(state["place"])
        if len(saved) == 3:
            raise Stopped

    real = Checkpoint.save
    monkeypatch.setattr(checkpoints, "SECONDS", 0)
    monkeypatch.setattr(Checkpoint, "save", save_and_stop)
    with pytest.raises(Stopped):
        execute(RUNS, own_store)
    monkeypatch.undo()
    monkeypatch.setenv("LSR_STORE", str(own_store.folder))
    assert saved == [[1, 1], [1, 2], [2, 1]]
    assert own_store.keys() == []
    return own_store


def the_state(store):
    (path,) = (store.folder / "checkpoints").glob("*.state")
    return path


def stated(records):
    return [(record.key, record.metrics, record.curves, record.diverged_at) for record in records]


def undisturbed(tmp_path):
    return stated(execute(RUNS, Store(tmp_path / "other")))


def test_an_interrupted_stack_goes_on_resume(interrupted, tmp_path, monkeypatch):
    steps = []
    real = training._Stack._make_step
    monkeypatch.setattr(training._Stack, "_make_step", lambda *a: steps.append(1) or real(*a))
    records = execute(RUNS, interrupted)
    assert len(steps) == 3  # of 6: three were made before
    assert stated(records) == undisturbed(tmp_path)
    assert all(record.provenance["resumed"] for record in records)
    assert list((interrupted.folder / "checkpoints").iterdir()) == []
    assert list((interrupted.folder / "claims").iterdir()) == []


def test_a_wish_for_one_of_the_runs_finishes_the_stack_resume(interrupted):
    (record,) = execute(RUNS[1:2], interrupted)
    assert record.provenance["resumed"]
    assert interrupted.keys() == sorted(run.key for run in RUNS)


def test_other_runs_leave_a_state_alone_resume(interrupted):
    other = Run("digits", 50, objective("lsr"), Schedule(0.1, epochs=1), 9)
    execute([other], interrupted)
    assert the_state(interrupted).exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: content[:100],
        lambda content: content[:0],
        lambda content: content[:-1] + bytes([content[-1] ^ 1]),
        lambda content: b"[1]\n" + content,
    ],
)
def test_a_damaged_state_is_told_and_the_runs_start_again_resume(interrupted, tmp_path, damage):
    path = the_state(interrupted)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.warns(UserWarning, match=r"checkpoint .* is damaged .* and is removed; its runs start again"):
        records = execute(RUNS, interrupted)
    assert stated(records) == undisturbed(tmp_path)
    assert not path.exists()


def edited(store, **provenance):
    path = the_state(store)
    head, content = path.read_bytes().split(b"\n", 1)
    head = json.loads(head)
    head["provenance"] |= provenance
    path.write_bytes(json.dumps(head).encode() + b"\n" + content)


def test_a_state_of_other_sources_is_told_and_not_used_resume(interrupted, tmp_path):
    edited(interrupted, sources="another")
    with pytest.warns(
        UserWarning, match="was made by another version of lsr_core and is removed; its runs start again"
    ):
        records = execute(RUNS, interrupted)
    assert stated(records) == undisturbed(tmp_path)
    assert not any(record.provenance["resumed"] for record in records)


@pytest.mark.parametrize(("name", "value"), [("threads", 8), ("simd", "SSE9")])
def test_a_state_of_other_conditions_is_told_and_goes_on_resume(interrupted, name, value):
    edited(interrupted, **{name: value})
    with pytest.warns(UserWarning, match=f"3 runs were begun with {name} {value} and go on with"):
        records = execute(RUNS, interrupted)
    assert all(record.provenance["resumed"] for record in records)


def test_what_is_left_of_finished_runs_is_cleared_away_resume(interrupted):
    path = the_state(interrupted)
    content = path.read_bytes()
    execute(RUNS, interrupted)
    path.write_bytes(content)  # as if the process had died before it could remove it
    execute([Run("digits", 50, objective("lsr"), Schedule(0.1, epochs=1), 9)], interrupted)
    assert not path.exists()


def test_a_full_disk_ends_in_a_sentence_and_the_store_is_whole(own_store, monkeypatch):
    finished = execute(RUNS[:1], own_store)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "SECONDS", 0)
    monkeypatch.setattr(checkpoints, "write_whole", full)
    with pytest.raises(InputError, match=r"cannot be written \(No space left on device\); finished runs are kept"):
        execute(RUNS, own_store)
    monkeypatch.undo()
    assert execute(RUNS[:1], own_store) == finished
    assert len(execute(RUNS, own_store)) == 3


def test_no_part_of_a_file_is_left_when_the_disk_is_full(own_store, monkeypatch):
    monkeypatch.setattr("pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(InputError, match="cannot be written"):
        Weights(own_store).put("ab" * 10, 3, {"w": torch.zeros(3)})
    monkeypatch.undo()
    assert [path for path in own_store.folder.rglob("*") if path.is_file()] == []


def test_weights_are_kept_and_a_damaged_file_is_told(own_store):
    weights, tensors = Weights(own_store), {"b": torch.randn(3, 4), "a": torch.arange(3)}
    weights.put("ab" * 10, 3, tensors)
    found = weights.get("ab" * 10, 3)
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
    path = weights.path("ab" * 10, 3)
    content = path.read_bytes()
    for damaged in (content[:-5], content[:-1] + bytes([content[-1] ^ 1]), b""):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="were damaged and are removed; the same command trains them again"):
            weights.get("ab" * 10, 3)
        assert not path.exists()


def test_states_are_written_no_oftener_than_stated(own_store):
    checkpoint = Checkpoint(own_store, RUNS)
    assert not checkpoint.is_due()
    checkpoint._last -= checkpoints.SECONDS
    assert checkpoint.is_due()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert checkpoint.load(1) is None
