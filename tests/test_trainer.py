import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from plain_loop import plain_loop

from lsr_core import InputError, examples, objective
from lsr_core.data import dataset
from lsr_core.evaluation import evaluation_epochs
from lsr_core.examples import Examples
from lsr_core.models import Convnet, ImageNetwork, Perceptron
from lsr_core.objectives import METHODS as OBJECTIVES
from lsr_core.objectives import Batch, Fixed
from lsr_core.optimizers import FusedSGD
from lsr_core.run import Run, TrainedTeacher, stream
from lsr_core.schedule import Schedule
from lsr_core.statistics import mean_interval
from lsr_core.trainer import Trainer, train

METHODS = [
    objective("cross-entropy"),
    objective("lsr"),
    objective("lsrkd", temperature=4),
    objective("lsrkd-tc", temperature=4),
]


def runs(count, epochs=2, methods=METHODS, **schedule):
    constants = {"learning_rate": 0.1, "weight_decay": 1e-3, **schedule}
    return [
        Run("digits", 100, methods[i % len(methods)], Schedule(epochs=epochs, **constants), seed=i // len(methods))
        for i in range(count)
    ]


def weights(stack, place):
    return torch.cat([parameter[place].flatten() for parameter in stack.network.parameters()]).detach()


def relative(a, b):
    return ((a - b).norm() / b.norm()).item()


def test_one_step_of_a_stack_is_the_step_of_each_run_alone():
    batch = runs(8)
    stack = Trainer(batch)
    x, y = stack.data.split.train_inputs[:, :25], stack.data.labels[:, :25]
    logits = stack.network(x)
    stack.learners[0].differentiate(Examples(x, y, stack.learners[0].soft()[:, :25], None))
    for place, run in enumerate(batch):
        alone = Trainer([run])
        loss = run.objective(alone.network(x[place : place + 1]), y[place : place + 1])
        loss.total.sum().backward()
        stacked = run.objective(logits[place : place + 1].detach(), y[place : place + 1])
        assert abs(stacked.total.item() / loss.total.item() - 1) < 1e-6
        ours = torch.cat([p.grad[place].flatten() for p in stack.network.parameters()])
        theirs = torch.cat([p.grad[0].flatten() for p in alone.network.parameters()])
        assert relative(ours, theirs) < 1e-6


def test_ten_steps_of_a_stack_are_the_ten_steps_of_an_ordinary_loop():
    """torch's own network, optimizer and cross-entropy, the same batches: 10 steps are 2 epochs of 125 images."""
    batch = [Run("digits", 125, m, Schedule(0.1, 1e-3, epochs=2), seed=7) for m in METHODS[:2]]
    stack = Trainer(batch)
    stack.train()
    for place, run in enumerate(batch):
        network, _ = plain_loop(run)
        theirs = [t for layer in network[::2] for t in (layer.weight.T, layer.bias)]
        ours = [t[place] for pair in zip(stack.network.weights, stack.network.biases, strict=True) for t in pair]
        for a, b in zip(ours, theirs, strict=True):
            assert relative(a.flatten(), b.flatten()) < 1e-5


def assert_each_ends_as_alone(stack, batch):
    for place, run in enumerate(batch):
        alone = Trainer([run])
        alone.train()
        assert relative(weights(stack, place), weights(alone, 0)) < 1e-5


def test_ten_steps_stacked_and_alone_agree_for_every_method():
    batch = [Run("digits", 125, m, Schedule(0.1, 1e-3, epochs=2), seed=7) for m in METHODS]
    stack = Trainer(batch)
    stack.train()
    assert_each_ends_as_alone(stack, batch)


@pytest.mark.slow
def test_a_whole_run_in_float64_measures_the_same_stacked_alone_and_in_an_ordinary_loop():
    batch = runs(4, epochs=60)
    stacked = train(batch, dtype=torch.float64)
    for run, outcome in zip(batch, stacked, strict=True):
        (alone,) = train([run], dtype=torch.float64)
        for name, value in outcome.metrics.items():
            assert value == pytest.approx(alone.metrics[name], abs=1e-6), name
    for run, outcome in list(zip(batch, stacked, strict=True))[:2]:
        _, measured = plain_loop(run, torch.float64)
        assert outcome.metrics["accuracy"] == pytest.approx(measured["accuracy"], abs=1e-6)
        assert outcome.metrics["nll"] == pytest.approx(measured["nll"], abs=1e-6)


@pytest.mark.slow
def test_whole_runs_in_float32_agree_on_average_with_an_ordinary_loop(capsys):
    batch = runs(32, epochs=60, methods=METHODS[:2])
    stacked = np.array([100 * outcome.metrics["accuracy"] for outcome in train(batch)])
    alone = np.array([100 * plain_loop(run)[1]["accuracy"] for run in batch])
    mean, low, high = mean_interval(stacked - alone)
    with capsys.disabled():
        print(f"\nstack minus loop over 32 runs: {mean:+.3f} points [{low:+.3f}, {high:+.3f}]")
    assert abs(mean) <= 0.3
    assert low <= 0 <= high


def test_the_same_stack_again_is_bit_identical():
    batch = runs(32, epochs=12)
    assert train(batch) == train(batch)


def test_a_mate_that_diverges_changes_no_bit_of_the_others():
    batch = runs(8, epochs=12)
    clean = train(batch)
    doomed = Run("digits", 100, METHODS[0], Schedule(1e30, epochs=12), seed=9)
    mixed = train([*batch[:3], doomed, *batch[4:]])
    assert mixed[3].diverged_at is not None
    assert [o for i, o in enumerate(mixed) if i != 3] == [o for i, o in enumerate(clean) if i != 3]
    assert mixed[3].metrics["nll"] is None
    assert all(outcome.diverged_at is None for outcome in clean)


def test_runs_of_a_stack_differ_in_rate_and_decay():
    batch = [Run("digits", 100, METHODS[0], Schedule(lr, wd, epochs=2), 0) for lr, wd in ((0.1, 0.0), (0.05, 0.01))]
    stack = Trainer(batch)
    stack.train()
    assert_each_ends_as_alone(stack, batch)
    assert relative(weights(stack, 0), weights(stack, 1)) > 0.01


def test_methods_of_a_seed_share_their_start_and_order():
    stack = Trainer(runs(4))
    assert torch.equal(weights(stack, 0), weights(stack, 3))
    orders = [torch.randperm(100, generator=generator) for generator in stack.data.streams]
    assert torch.equal(orders[0], orders[3])


def test_the_learning_rate_falls_by_half_a_cosine():
    """With no momentum and the data of one batch, the path is gradient descent with the stated rates."""
    run = Run("digits", 25, METHODS[0], Schedule(0.05, 0.0, epochs=4, momentum=0.0), seed=0)
    stack = Trainer([run], dtype=torch.float64)
    reference = Trainer([run], dtype=torch.float64)
    stack.train()
    order, split = stream(0, "student", "order"), dataset("digits").split(25, 0)
    for epoch in range(4):
        rows = torch.randperm(25, generator=order)
        logits = reference.network(split.train_inputs[rows][None].double())
        run.objective(logits, split.train_labels[rows][None]).total.sum().backward()
        with torch.no_grad():
            for parameter in reference.network.parameters():
                parameter -= 0.05 * (1 + math.cos(math.pi * epoch / 4)) / 2 * parameter.grad
                parameter.grad = None
    assert relative(weights(stack, 0), weights(reference, 0)) < 1e-12


def test_curves_are_kept_at_twelve_evaluation_epochs_and_end_with_the_metrics():
    (outcome,) = train(runs(1, epochs=60))
    assert outcome.curves["epoch"] == list(range(5, 61, 5))
    assert outcome.curves["test_accuracy"][-1] == outcome.metrics["accuracy"]
    assert outcome.curves["validation_nll"][-1] == outcome.metrics["validation_nll"]


@pytest.mark.parametrize("epochs", [1, 2, 5, 12, 13, 60, 200])
def test_evaluation_epochs_are_at_most_twelve_and_end_with_the_last(epochs):
    stated = evaluation_epochs(epochs)
    assert len(stated) == min(epochs, 12)
    assert stated[-1] == epochs
    assert stated == sorted(set(stated))
    assert stated[0] >= 1


def test_runs_of_different_shapes_are_refused():
    with pytest.raises(InputError, match="runs in one stack must share data, sizes, network and epochs"):
        train([*runs(1, epochs=1), *runs(1, epochs=2)])


def test_the_last_batch_may_be_smaller():
    (outcome,) = train([Run("digits", 30, METHODS[0], Schedule(0.1, epochs=3), seed=0)])
    assert outcome.diverged_at is None


def test_the_mixture_is_measured_against_its_posterior():
    (outcome,) = train([Run("mixture-10-80", 100, METHODS[0], Schedule(0.05, epochs=3), seed=0)])
    assert outcome.metrics["kl_posterior_scaled"] <= outcome.metrics["kl_posterior"]
    assert outcome.metrics["kl_dark"] > 0


def test_a_student_is_measured_against_its_teachers_soft_targets():
    """And nobody else: a stack may hold methods with a teacher and without one."""
    teacher = TrainedTeacher(Run("digits", 60, METHODS[0], Schedule(0.1), role="teacher"))
    methods = [objective("kd", alpha=0.5, temperature=2.0), objective("soft-only", temperature=4.0), METHODS[0]]
    batch = [
        Run("digits", 60, m, Schedule(0.1, epochs=2), teacher=teacher if m.takes_teacher else None).at(0)
        for m in methods
    ]
    logits = teachers_logits(3, 60)
    stack = Trainer(batch, logits)
    found = [outcome.metrics["train_soft_nll"] for outcome in stack.train()]
    outputs = stack.logits(stack.data.split.train_inputs).double()
    for place, tau in enumerate((2.0, 4.0)):
        q = (logits[place].double() / tau).softmax(-1)
        expected = torch.nn.functional.cross_entropy(outputs[place] / tau, q)
        assert found[place] == pytest.approx(expected.item(), rel=1e-9)
    assert found[2] is None
    (alone,) = train(batch[2:])
    assert "train_soft_nll" not in alone.metrics


def test_the_share_of_the_most_frequent_class_is_kept():
    (outcome,) = train([Run("digits", 60, METHODS[0], Schedule(0.1, epochs=1), seed=0)])
    labels = dataset("digits").split(60, 0).train_labels
    assert outcome.metrics["train_majority"] == pytest.approx(labels.bincount().max().item() / 60)


# Every method, with a memory or a teacher, on both networks.


def teachers_logits(count, train, seed=3):
    return 3 * torch.randn(count, train, 10, generator=torch.Generator().manual_seed(seed))


def taught(method, count=1, network=None, epochs=4, train=60, **schedule):
    constants = {"every": 1} if method.startswith("mrkd") else {}
    made = objective(method, **constants)
    teacher = Run("digits", 100, METHODS[0], Schedule(0.1), 0, role="teacher")
    teacher = TrainedTeacher(teacher) if made.takes_teacher else None
    schedule = Schedule(**{"learning_rate": 0.1, "weight_decay": 1e-3, "epochs": epochs, **schedule})
    return [
        Run("digits", train, made, schedule, seed, network or Perceptron((16,)), teacher=teacher)
        for seed in range(count)
    ]


def trained_as_alone(batch, logits):
    """The stack of these runs, trained in double precision; each run ends where it ends alone."""
    stack = Trainer(batch, logits, dtype=torch.float64)
    stack.train()
    for place, run in enumerate(batch):
        alone = Trainer([run], logits[place : place + 1], dtype=torch.float64)
        alone.train()
        torch.testing.assert_close(weights(stack, place), weights(alone, 0), rtol=1e-8, atol=1e-10)
    return stack


REMEMBERING = [name for name in OBJECTIVES if objective(name).memory is not None]


@pytest.mark.parametrize("method", [*REMEMBERING, "lsr", "kd", "ladder-uniform", "zipf"])
def test_convnets_of_every_method_end_stacked_where_they_end_alone(method):
    stack = trained_as_alone(taught(method, 2, Convnet((2, 4)), epochs=2), teachers_logits(2, 60))
    assert relative(weights(stack, 0), weights(stack, 1)) > 0.01


@pytest.mark.parametrize("method", OBJECTIVES)
def test_no_bit_of_a_perceptron_depends_on_its_mates(method):
    batch, logits = taught(method, 5), teachers_logits(5, 60)
    together = train(batch, logits)
    assert together[1:2] == train(batch[1:2], logits[1:2])  # on AVX2 odd places are the ones that begin off a boundary
    assert together[2:] == train(batch[2:], logits[2:])
    assert len({outcome.metrics["nll"] for outcome in together}) == 5


@pytest.mark.parametrize("method", OBJECTIVES)
def test_every_method_is_the_library_in_an_ordinary_loop(method):
    """torch's optimizer and autograd, `objective(...)` and its hooks as the README prints them, in float64."""
    (run,) = taught(method)
    logits = teachers_logits(1, 60)
    stack = Trainer([run], logits, dtype=torch.float64)
    stack.train()
    split, loop = dataset("digits").split(60, 0), Trainer([run], logits, dtype=torch.float64).network
    inputs, labels = split.train_inputs.double(), split.train_labels
    numbers, rows = stream(0, "student", "order"), torch.arange(60)
    ours = replace(run.objective)
    if run.teacher is not None:
        outputs = Batch(logits[0].double(), labels, logits[0].double(), rows)
        ours = ours.fitted(outputs)
    if ours.memory is not None:
        ours.memory.generators = [stream(0, "student", "draws")]
    optimizer = torch.optim.SGD(loop.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    for epoch in range(4):
        for step, index in enumerate(torch.randperm(60, generator=numbers).split(25)):
            optimizer.param_groups[0]["lr"] = 0.1 * run.schedule.rate(epoch + step / 3)
            x, y = inputs[index][None], labels[index][None]
            given = logits[:, index].double() if run.teacher is not None else ours.teacher_logits(loop, x)
            loop.train()
            loss = ours(loop(x), y, given, index[None])
            optimizer.zero_grad()
            loss.total.sum().backward()
            optimizer.step()
            ours.after_step(loop)
        ours.after_epoch(loop, epoch + 1)
    found = torch.cat([parameter[0].flatten() for parameter in loop.parameters()]).detach()
    torch.testing.assert_close(weights(stack, 0), found, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("method", REMEMBERING)
def test_a_remembering_run_that_diverges_changes_no_bit_of_its_mates(method):
    calm = taught(method, 4)
    wild = [*calm[:2], *taught(method, 3, learning_rate=1e30)[2:], calm[3]]
    outcomes, shaken = train(calm), train(wild)
    assert shaken[2].diverged_at is not None
    assert [outcomes[i] for i in (0, 1, 3)] == [shaken[i] for i in (0, 1, 3)]


def test_methods_with_fixed_soft_labels_train_in_one_stack():
    names = [name for name in OBJECTIVES if isinstance(objective(name), Fixed)]
    batch, logits = [taught(name)[0] for name in names], teachers_logits(len(names), 60)
    assert len(names) >= 22
    trained_as_alone(batch, logits)


# Schedules.


def optimized(run, dtype=torch.float64):
    stack = Trainer([run], dtype=dtype)
    stack.train()
    return stack


def ordinary(run, decay_groups=True):
    """The run with torch's own optimizer."""
    stack, schedule = Trainer([run], dtype=torch.float64), run.schedule
    head = {id(parameter) for parameter in stack.network.head}
    groups = [[p for p in stack.network.parameters() if (id(p) in head) == is_head] for is_head in (False, True)]
    decays = schedule.weight_decay, schedule.head_decay if decay_groups else schedule.weight_decay
    optimizer = torch.optim.SGD(
        [{"params": group, "weight_decay": decay} for group, decay in zip(groups, decays, strict=True)],
        lr=schedule.learning_rate,
        momentum=schedule.momentum,
        nesterov=schedule.nesterov,
    )
    inputs, labels, order = stack.data.split.train_inputs, stack.data.labels, stack.data.streams[0]
    steps = math.ceil(run.train / schedule.batch_size)
    for epoch in range(schedule.last):
        for step, rows in enumerate(torch.randperm(run.train, generator=order).split(schedule.batch_size)):
            for group in optimizer.param_groups:
                group["lr"] = schedule.learning_rate * schedule.rate(epoch + step / steps)
            optimizer.zero_grad()
            run.objective(stack.network(inputs[:, rows]), labels[:, rows]).total.sum().backward()
            optimizer.step()
    return stack


def schedule_run(**constants):
    schedule = {"learning_rate": 0.1, "weight_decay": 1e-2, "head_decay": 1e-2, "epochs": 3, **constants}
    return Run("digits", 60, METHODS[2], Schedule(**schedule), 0, Perceptron((16,)))


@pytest.mark.parametrize(
    "constants",
    [
        {},
        {"nesterov": True},
        {"head_decay": 0.3},
        {"momentum": 0.0},
        {"curve": "step", "milestones": (1, 2), "warmup": 1},
        {"curve": "one-cycle", "nesterov": True, "head_decay": 0.0},
    ],
    ids=str,
)
def test_the_optimizer_is_torchs(constants):
    run = schedule_run(**constants)
    ours, theirs = optimized(run), ordinary(run)
    torch.testing.assert_close(weights(ours, 0), weights(theirs, 0), rtol=1e-9, atol=1e-12)


def test_the_fused_kernel_of_a_network_that_trains_alone_makes_the_same_steps(monkeypatch):
    run = schedule_run(nesterov=True, head_decay=0.2)
    ours = weights(optimized(run), 0)
    monkeypatch.setattr(Perceptron, "stack_size", 1)
    fused = Trainer([run], dtype=torch.float64)
    assert isinstance(fused.learners[0].optimizer, FusedSGD)
    fused.train()
    torch.testing.assert_close(weights(fused, 0), ours, rtol=1e-9, atol=1e-12)


def test_a_stopped_run_is_the_beginning_of_the_whole_one():
    kept = {}

    def keep(trainer):
        kept[trainer.schedule.stop, trainer.epoch] = trainer.weights(0)

    Trainer([schedule_run(epochs=6)]).train(keep)
    (outcome,) = Trainer([schedule_run(epochs=6, stop=2)]).train(keep)
    assert outcome.curves["epoch"] == [1, 2]
    assert set(kept) == {*((None, e) for e in range(1, 7)), (2, 1), (2, 2)}
    assert all(torch.equal(kept[None, 2][name], tensor) for name, tensor in kept[2, 2].items())
    assert not torch.equal(kept[None, 2]["weights.0"], kept[None, 6]["weights.0"])


# State.


@pytest.mark.parametrize(
    ("method", "network"),
    [
        *((name, Perceptron((16,))) for name in ("lsr", "kd", "zipf", *REMEMBERING)),
        *((name, Convnet((2, 4))) for name in ("lsr", "mrkd", "beta-smoothing-released")),
    ],
    ids=str,
)
def test_a_state_after_any_epoch_goes_on_to_the_same_bits_resume(method, network):
    batch, logits = taught(method, 2, network, epochs=3, train=50), teachers_logits(2, 50)
    states = []
    undisturbed = Trainer(batch, logits).train(lambda trainer: states.append(copy.deepcopy(trainer.state_dict())))
    assert [state["epoch"] for state in states] == [1, 2, 3]
    for state in states[:2]:
        again = Trainer(batch, logits)
        again.load_state_dict(state)
        assert again.train() == undisturbed


def test_a_state_remembers_that_a_run_diverged_resume():
    wild, states = [Run("digits", 50, METHODS[0], Schedule(1e30, epochs=3), 0)], []
    whole = Trainer(wild).train(lambda trainer: states.append(copy.deepcopy(trainer.state_dict())))
    again = Trainer(wild)
    again.load_state_dict(states[1])
    assert again.train() == whole
    assert whole[0].diverged_at <= 2


def test_the_callers_threads_are_given_back():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        train(runs(1, epochs=1))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert examples.STACK_THREADS == 1


def test_a_state_is_shared_with_no_other_trainer():
    run = Run("digits", 50, objective("lsr"), Schedule(0.1, epochs=4), 0, Perceptron((16,)))
    one, other, undisturbed = Trainer([run]), Trainer([run]), Trainer([run])
    for trainer in (one, undisturbed):
        trainer.train_epoch()
        trainer.evaluate()
    other.load_state_dict(one.state_dict())
    ends = [trainer.train()[0] for trainer in (one, other, undisturbed)]
    assert ends[0].metrics == ends[1].metrics == ends[2].metrics
    assert ends[0].curves == ends[1].curves == ends[2].curves
    finished = Trainer([run])
    finished.load_state_dict(one.state_dict())
    assert finished.train() == [ends[0]]


def test_a_stack_is_trained_on_any_device():
    """On torch's device without numbers, which refuses tensors of others."""
    Trainer([Run("digits", 50, objective("lsr"), Schedule(0.1, epochs=1), 0)], device="meta").network.train()


@pytest.mark.parametrize("missing", ["teacher", "initial"])
def test_a_run_does_not_begin_without_what_it_needs(missing, image_file):
    first = Run(str(image_file), 60, objective("cross-entropy"), Schedule(0.1, epochs=1), 0, ImageNetwork("resnet8", 4))
    other = TrainedTeacher(replace(first, role="other"))
    method = "kd" if missing == "teacher" else "cross-entropy"
    with pytest.raises(InputError, match=f"{missing} does not fit the runs; give tensors where a run has it"):
        Trainer([replace(first, objective=objective(method), **{missing: other})])
