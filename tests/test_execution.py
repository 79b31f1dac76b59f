import pytest

from lsr_core import InputError, objective, training
from lsr_core.execution import execute
from lsr_core.models import Convnet, Perceptron
from lsr_core.runs import Run
from lsr_core.schedules import Schedule

STACK = Perceptron().stack_size

CE, LSR = objective("cross-entropy"), objective("lsr")


def runs(count, train=50, method=CE, first=0):
    return [Run("digits", train, method, Schedule(0.1, epochs=1), seed) for seed in range(first, first + count)]


@pytest.fixture
def trained(monkeypatch):
    """The keys of all runs trained, in order."""
    keys, real = [], training.train

    def counted(stack, *arguments, **options):
        keys.extend(run.key for run in stack)
        return real(stack, *arguments, **options)

    monkeypatch.setattr(training, "train", counted)
    return keys


def test_records_come_in_the_order_of_the_runs(trained):
    asked = [*runs(3), *runs(3, method=LSR), *runs(2, train=75)]
    asked = asked[::-1]
    assert [record.key for record in execute(asked)] == [run.key for run in asked]
    assert sorted(trained) == sorted(run.key for run in asked)


def test_nothing_is_trained_twice(trained):
    first = execute(runs(3))
    assert execute(runs(3)) == first
    execute([*runs(3), *runs(3)])
    assert len(trained) == 3
    execute(runs(5))
    assert len(trained) == 5


def test_stacks_hold_runs_of_one_shape_and_no_more_than_fit(monkeypatch):
    stacks, real = [], training.train
    monkeypatch.setattr(training, "train", lambda stack, *a, **o: stacks.append(stack) or real(stack, *a, **o))
    convnets = [Run("digits", 50, CE, Schedule(0.1, epochs=1), seed, Convnet((2,))) for seed in range(33)]
    execute([*runs(STACK + 3), *runs(2, train=75), *runs(3, method=LSR), *convnets])
    assert all(len({run.shape for run in stack}) == 1 for stack in stacks)
    assert sorted(map(len, stacks)) == [1, 2, 6, Convnet((2,)).stack_size, STACK]  # methods share a stack, sizes do not


def test_an_interruption_keeps_what_is_finished_and_a_rerun_trains_the_rest(monkeypatch, trained):
    real = training.train
    calls = []

    def interrupted(stack, *arguments, **options):
        calls.append(stack)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(stack, *arguments, **options)

    monkeypatch.setattr(training, "train", interrupted)
    asked = runs(STACK + 4)
    with pytest.raises(KeyboardInterrupt):
        execute(asked)
    monkeypatch.setattr(training, "train", real)
    assert len(trained) == STACK
    execute(asked)
    assert len(trained) == len(set(trained)) == STACK + 4


def test_another_process_may_be_faster(monkeypatch, trained):
    """Records that appear while a stack is trained are taken, not made again."""
    real = training.train
    asked = [*runs(STACK), *runs(2, first=STACK)]

    def helped(stack, *arguments, **options):
        monkeypatch.setattr(training, "train", real)
        execute(asked[STACK:])
        return real(stack, *arguments, **options)

    monkeypatch.setattr(training, "train", helped)
    execute(asked)
    assert len(trained) == len(set(trained)) == STACK + 2


def test_a_damaged_record_stops_before_training_and_loses_nothing(own_store, trained):
    execute(runs(2))
    path = next(own_store.folder.glob(f"*/{runs(1)[0].key}.json"))
    path.write_text("{")
    with pytest.raises(InputError, match="is damaged"):
        execute(runs(4))
    assert len(trained) == 2
    assert len(own_store.keys()) == 2
    own_store.remove(runs(1)[0].key)
    execute(runs(4))
    assert len(trained) == 5


def test_a_store_that_cannot_be_written_is_refused_before_training(tmp_path, monkeypatch, trained):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LSR_STORE", str(tmp_path / "file"))
    with pytest.raises(InputError, match="cannot be written"):
        execute(runs(1))
    assert not trained


def test_records_say_how_they_were_made():
    (record,) = execute(runs(1))
    assert record.made["threads"] == 1
    assert record.made["stack"] == 1
    assert record.seconds > 0


def test_a_diverged_run_is_a_record():
    (record,) = execute([Run("digits", 50, CE, Schedule(1e30, epochs=2), 0)])
    assert record.diverged_at is not None
    assert record.metrics["nll"] is None
