import shutil
import time
from dataclasses import replace

import pytest
import torch

from lsr_core import InputError, objective, precision, stacks
from lsr_core.checkpoints import RunLocks, unfinished
from lsr_core.data import dataset
from lsr_core.execute import execute
from lsr_core.models import Convnet, ImageNetwork, Perceptron, StackedPerceptron
from lsr_core.objectives import ladder
from lsr_core.provenance import hardware, provenance
from lsr_core.run import ExactPosterior, Run, TrainedTeacher
from lsr_core.schedule import Schedule
from lsr_core.stacks import stack_size, teacher_logits
from lsr_core.store import Store
from lsr_core.trainer import Trainer, train

STACK = Perceptron().stack_size

CE, LSR = objective("cross-entropy"), objective("lsr")


def runs(count, train=50, method=CE, first=0):
    return [Run("digits", train, method, Schedule(0.1, epochs=1), seed) for seed in range(first, first + count)]


@pytest.fixture
def trained(monkeypatch):
    """The keys of all runs trained, in order."""
    keys, real = [], Trainer.training

    def counted(self, *arguments):
        keys.extend(run.key for run in self.runs)
        return real(self, *arguments)

    monkeypatch.setattr(Trainer, "training", counted)
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
    stacks, real = [], Trainer.training
    monkeypatch.setattr(Trainer, "training", lambda self, *a: stacks.append(self.runs) or real(self, *a))
    convnets = [Run("digits", 50, CE, Schedule(0.1, epochs=1), seed, Convnet((2,))) for seed in range(33)]
    execute([*runs(STACK + 3), *runs(2, train=75), *runs(3, method=LSR), *convnets])
    assert all(len({run.stack_key for run in stack}) == 1 for stack in stacks)
    assert sorted(map(len, stacks)) == [1, 2, 6, Convnet((2,)).stack_size, STACK]  # methods share a stack, sizes do not


def test_an_interruption_keeps_what_is_finished_and_a_rerun_trains_the_rest(monkeypatch, trained):
    real = Trainer.training
    calls = []

    def interrupted(self, *arguments):
        calls.append(self)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(self, *arguments)

    monkeypatch.setattr(Trainer, "training", interrupted)
    asked = runs(STACK + 4)
    with pytest.raises(KeyboardInterrupt):
        execute(asked)
    monkeypatch.setattr(Trainer, "training", real)
    assert len(trained) == STACK
    execute(asked)
    assert len(trained) == len(set(trained)) == STACK + 4


def test_another_process_may_be_faster(monkeypatch, trained):
    """Records that appear while a stack is trained are taken, not made again."""
    real = Trainer.training
    asked = [*runs(STACK), *runs(2, first=STACK)]

    def helped(self, *arguments):
        monkeypatch.setattr(Trainer, "training", real)
        execute(asked[STACK:])
        return real(self, *arguments)

    monkeypatch.setattr(Trainer, "training", helped)
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


@pytest.mark.parametrize("half", [False, True])
def test_every_condition_in_a_record_is_what_its_training_had(image_file, monkeypatch, half):
    """Threads, device, precision and the size of the stack, as a layer and the loop see them while they train."""
    monkeypatch.setattr(precision, "gain", lambda *_: 2.0 if half else 1.0)
    images = Run(str(image_file), 60, objective("lsr"), Schedule(0.05, epochs=1), 0, ImageNetwork("plain_cnn", width=4))
    seen = {}

    def look(layer, inputs):
        if isinstance(layer, (torch.nn.BatchNorm1d, StackedPerceptron)):
            kind = str(inputs[0].dtype).removeprefix("torch.")
            seen.update(precision=kind, device=inputs[0].device.type, threads=torch.get_num_threads())

    def hooked(trainer):
        seen["stack"] = len(trainer.runs)
        hooks = [module.register_forward_pre_hook(look) for module in trainer.network.modules()]
        yield from real(trainer)
        for hook in hooks:
            hook.remove()

    real = Trainer._epoch
    monkeypatch.setattr(Trainer, "_epoch", hooked)
    for wanted in ([images], runs(3, method=objective("zipf"))):
        seen.clear()
        for record in execute(wanted):
            assert {name: record.provenance[name] for name in ("precision", "device", "threads", "stack")} == seen
            assert record.provenance["stack"] == len(wanted)
            assert record.provenance["resumed"] is False
            assert not {"cuda", "cudnn", "compiled"} & record.provenance.keys()


def test_a_gpu_is_named_with_its_versions(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"NVIDIA H100 80GB HBM3 {device.index}")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91300)
    expected = {"device": "NVIDIA H100 80GB HBM3 0", "cuda": "13.0", "cudnn": 91300}
    assert hardware(torch.device("cuda", 0)) == expected
    assert hardware(torch.device("cpu")) == {"device": "cpu"}


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=r"device is 'cuda', and torch .* finds no GPU here; give 'cpu'"):
        Trainer(runs(1), device="cuda")


def test_records_say_how_they_were_made():
    together = execute(runs(3))
    for record in together:
        assert record.provenance["threads"] == 1
        assert record.provenance["stack"] == 3
        assert (record.provenance["device"], record.provenance["precision"]) == ("cpu", "float32")
        assert record.provenance["resumed"] is False
        assert record.provenance == {**record.provenance, **provenance()}
        assert record.seconds > 0


def test_runs_that_finish_late_are_kept_and_no_stack_begins_after_the_deadline(own_store, monkeypatch):
    """The clock passes the deadline in the last epoch of the first stack."""
    real, deadline = Trainer.evaluate, time.monotonic() + 3600

    def slow(self):
        monkeypatch.setattr(time, "monotonic", lambda: deadline)
        real(self)

    monkeypatch.setattr(Trainer, "evaluate", slow)
    with pytest.raises(stacks.OutOfTime):
        execute(runs(STACK + 1), own_store, deadline=deadline)
    assert len(own_store.keys()) == STACK


def test_a_diverged_run_is_a_record():
    (record,) = execute([Run("digits", 50, CE, Schedule(1e30, epochs=2), 0)])
    assert record.diverged_at is not None
    assert record.metrics["nll"] is None


# Teachers.


def kd(seeds, teacher_epoch=None, alpha=0.5, train=50, **teacher):
    taught = {"role": "teacher", "network": Perceptron((8,)), **teacher}
    return [
        Run(
            "digits",
            train,
            objective("kd", alpha=alpha, temperature=4),
            Schedule(0.1, epochs=2),
            seed,
            teacher=TrainedTeacher(Run("digits", train, LSR, Schedule(0.1, epochs=3), seed, **taught), teacher_epoch),
        )
        for seed in seeds
    ]


def test_a_teacher_of_several_students_is_trained_once_and_answers_once(trained, monkeypatch):
    forwards, real, learnt = [], StackedPerceptron.forward, StackedPerceptron.backpropagate

    def forward(self, inputs):
        forwards.append((self.widths, tuple(inputs.shape), self.training))
        return real(self, inputs)

    def backpropagate(self, inputs, gradient):
        steps.append(tuple(inputs.shape))
        return learnt(self, inputs, gradient)

    steps = []
    monkeypatch.setattr(StackedPerceptron, "forward", forward)
    monkeypatch.setattr(StackedPerceptron, "backpropagate", backpropagate)
    students = [*kd([0, 1, 2]), *kd([0, 1, 2], alpha=0.9)]
    execute(students)
    assert len(trained) == len(set(trained)) == 3 + 6
    assert steps[-4:] == [(6, 25, 64)] * 4  # two epochs of two steps of the students
    teachers = [shape for widths, shape, training in forwards if not training and widths == (64, 8, 10)]
    # On the training set: at the end of their own training, plain and for sharpness (1 + 4), and once to teach.
    assert teachers.count((3, 50, 64)) == 1 + 5 + 1


def test_teachers_are_records_and_their_weights_are_kept(own_store, trained):
    students = kd([0, 1])
    execute(students)
    assert len(own_store.keys()) == 4
    execute([*students, *kd([0, 1], alpha=0.9)])
    assert len(trained) == 6  # two more students, no teacher again


def test_lost_weights_are_trained_again_to_the_same_bits(own_store, trained):
    first = execute(kd([0, 1]))
    shutil.rmtree(own_store.folder / "weights")
    for record in first:
        own_store.remove(record.key)
    again = execute(kd([0, 1]))
    assert [(r.metrics, r.curves) for r in again] == [(r.metrics, r.curves) for r in first]
    assert len(trained) == 8
    assert len(own_store.keys()) == 4


def test_finished_students_need_no_teacher(own_store, trained):
    execute(kd([0, 1]))
    shutil.rmtree(own_store.folder / "weights")
    execute(kd([0, 1]))
    assert len(trained) == 4


def test_damaged_weights_are_told_and_trained_again(own_store):
    execute(kd([0]))
    path = next(own_store.folder.glob("weights/*/*.safetensors"))
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(InputError, match="were damaged and are removed; the same command trains them again"):
        execute(kd([0], alpha=0.9))
    execute(kd([0], alpha=0.9))


def test_one_training_gives_a_teacher_of_every_stage(own_store, trained):
    students = [run for epoch in (1, 2, 3, None) for run in kd([0, 1], epoch)]
    records = execute(students)
    assert len(trained) == 2 + 6  # epoch 3 is the last one, and is named so
    assert len({record.metrics["nll"] for record in records}) == 6
    assert sorted(path.stem[-1] for path in own_store.folder.glob("weights/*/*")) == ["1", "1", "2", "2", "3", "3"]


def test_a_checkpoint_of_a_longer_run_is_the_network_at_that_epoch():
    """De-KD: the learning rate has not decayed yet."""
    long = Run("digits", 50, LSR, Schedule(0.1, epochs=9), 0, Perceptron((8,)), "teacher")
    networks = {}
    Trainer([long]).train(lambda trainer: networks.update({trainer.epoch: trainer.weights(0)}))
    student = replace(kd([0])[0], teacher=TrainedTeacher(long, 2))
    execute([student])
    kept = Store().weights(long.key, 2)
    assert all(torch.equal(kept[name], tensor) for name, tensor in networks[2].items())


def test_generations_are_trained_in_order(trained):
    run = Run("digits", 50, CE, Schedule(0.1, epochs=2), 0, role="generation-0")
    chain = [run]
    for generation in range(1, 5):
        method, role = objective("self-distillation"), f"generation-{generation}"
        chain.append(replace(run, objective=method, role=role, teacher=TrainedTeacher(chain[-1])))
    execute(chain[-1:])
    assert trained == [run.key for run in chain]


def test_the_truth_teaches_where_it_is_known():
    run = Run("mixture-10-80", 100, objective("soft-only"), Schedule(0.1), 0, teacher=ExactPosterior())
    logits = teacher_logits([run], Store())
    inputs = dataset("mixture-10-80").split(100, 0).train_inputs.double().numpy()
    assert torch.allclose(
        logits[0].double().exp(), torch.from_numpy(dataset("mixture-10-80").log_posterior(inputs)).exp()
    )
    (taught,), (plain,) = execute([run]), execute([replace(run, objective=CE, teacher=None)])
    assert taught.metrics["kl_posterior"] < plain.metrics["kl_posterior"]


def test_rungs_of_the_ladder_take_their_constants_from_the_teacher(own_store):
    (student,) = kd([0])
    rungs = [replace(student, objective=objective(f"ladder-{name}")) for name in ("uniform", "class-means")]
    records = execute(rungs)
    logits = teacher_logits(rungs[:1], own_store)[0]
    labels = dataset("digits").split(50, 0).train_labels
    for run, record, rung in zip(rungs, records, ladder(logits, labels, alpha=0.9, temperature=4.0), strict=False):
        (by_hand,) = train([replace(run, objective=rung, teacher=None)])
        assert record.metrics["nll"] == pytest.approx(by_hand.metrics["nll"], rel=1e-4)


def test_copies_bound_the_size_of_a_stack():
    sizes = [
        stack_size(Run("digits", 50, objective("mrkd", copies=copies), Schedule(0.1), 0)) for copies in (1, 3, 6, 200)
    ]
    assert sizes == [32, 32, 16, 1]
    assert all(size * copies <= max(96, copies) for size, copies in zip(sizes, (1, 3, 6, 200), strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"teacher": None}, "teacher is None; method 'kd' needs one"),
        ({"objective": LSR}, "method 'lsr' takes no teacher"),
        ({"role": "teacher"}, "teacher and student share the streams of seed 0, role 'teacher'; name another role"),
        (
            {"teacher": ExactPosterior()},
            "the posterior of digits is not known, or cannot teach; it can on a whole mixture",
        ),
        (
            {"data": "mixture-10-80"},
            "the teacher was trained on digits, which has other inputs or classes than mixture",
        ),
    ],
)
def test_teachers_that_cannot_be_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        replace(kd([0])[0], **change)


def test_an_epoch_that_the_teacher_never_had_is_refused():
    with pytest.raises(InputError, match="epoch is 4; the teacher's run has 3"):
        kd([0], 4)


def test_programs_side_by_side_make_the_same_records(tmp_path, monkeypatch, image_file):
    """Of three seeds with a teacher each, step by step in turn, as a GPU trains small networks."""
    network, schedule = ImageNetwork("plain_cnn", width=4), Schedule(0.05, epochs=2, batch_size=32)
    plain = Run(str(image_file), 60, CE, schedule, network=network)
    teacher = TrainedTeacher(replace(plain, role="teacher"))
    wanted = replace(plain, objective=objective("kd"), teacher=teacher).runs(range(3))
    alone = execute(wanted, Store(tmp_path / "alone"))
    steps, real = [], Trainer._epoch

    def noted(trainer):
        for _ in real(trainer):
            steps.append(trainer.runs[0].seed)
            yield

    monkeypatch.setattr(stacks, "abreast", lambda _: 2)
    monkeypatch.setattr(Trainer, "_epoch", noted)
    together = execute(wanted)
    assert steps[:8] == [0, 1] * 4  # of teachers; the third seed comes after them
    for one, other in zip(alone, together, strict=True):
        assert (one.key, one.metrics, one.curves) == (other.key, other.metrics, other.curves)
    assert [record.provenance["abreast"] for record in [*alone, *together]] == [1, 1, 1, 2, 2, 1]


def test_programs_side_by_side_keep_their_states_when_the_time_is_over(own_store, monkeypatch, image_file):
    network, schedule = ImageNetwork("plain_cnn", width=4), Schedule(0.05, epochs=2, batch_size=32)
    wanted = Run(str(image_file), 60, objective("lsr"), schedule, network=network).runs(range(3))
    monkeypatch.setattr(stacks, "abreast", lambda _: 3)
    real, deadline = Trainer._epoch, time.monotonic() + 3600

    def slow(trainer):
        yield from real(trainer)
        monkeypatch.setattr(time, "monotonic", lambda: deadline)

    monkeypatch.setattr(Trainer, "_epoch", slow)
    with pytest.raises(stacks.OutOfTime):
        execute(wanted, deadline=deadline)
    assert len(unfinished(own_store)) == 3
    monkeypatch.undo()
    monkeypatch.setenv("LSR_STORE", str(own_store.folder))
    monkeypatch.setattr(precision, "gain", lambda *_: 1.0)
    monkeypatch.setattr(stacks, "abreast", lambda _: 3)
    again = execute(wanted, own_store)
    assert all(record.provenance["resumed"] and record.provenance["abreast"] == 3 for record in again)


def test_a_gpu_trains_small_networks_in_turn(monkeypatch):
    resnet20, resnet18, digits = (
        Run(data, 100, CE, Schedule(0.1), 0, network)
        for data, network in (
            ("cifar100", ImageNetwork("resnet20")), ("cifar100", ImageNetwork("resnet18")), ("digits", Perceptron())
        )
    )  # fmt: skip
    assert stacks.abreast(resnet20) == 1
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [stacks.abreast(run) for run in (resnet20, resnet18, digits)] == [8, 1, 1]


def test_the_deadline_holds_while_another_process_has_the_runs(own_store):
    wanted = runs(1)
    with RunLocks(own_store) as locks:
        assert locks.lock(wanted[0].key)
        with pytest.raises(stacks.OutOfTime):
            execute(wanted, own_store, deadline=time.monotonic() + 0.5)


@pytest.mark.slow
def test_helpers_keep_their_states_when_the_time_is_over(own_store):
    long = Schedule(0.1, epochs=10**6)
    wanted = [Run("digits", 50, CE, long, 0, Perceptron((width,))) for width in (8, 9)]  # in two stacks
    with pytest.raises(stacks.OutOfTime):
        execute(wanted, own_store, workers=2, deadline=time.monotonic() + 15)
    assert len(unfinished(own_store)) == 2


@pytest.mark.parametrize("workers", [0, -1])
def test_no_workers_are_refused(workers):
    with pytest.raises(InputError, match=f"workers is {workers}; it must be a whole number above 0"):
        execute(runs(1), workers=workers)
