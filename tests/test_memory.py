import copy
import pickle

import pytest
import torch
from torch import nn

from lsr_core import METHODS, InputError, objective
from lsr_core.memory import MovingAverage
from lsr_core.objectives import Batch

REMEMBERING = [name for name in METHODS if objective(name).memory is not None]
N, D, K = 24, 5, 4


class Loop:
    """An ordinary training loop around one objective; the model has BatchNorm."""

    def __init__(self, method, **constants):
        torch.manual_seed(3)
        self.inputs, self.labels = torch.randn(N, D), torch.randint(K, (N,))
        self.model = nn.Sequential(nn.Linear(D, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, K))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        self.objective = objective(method, **constants)
        if self.objective.memory is not None:
            self.objective.memory.generators = [torch.Generator().manual_seed(4)]
        self.losses = []

    def step(self, rows):
        inputs, labels = self.inputs[rows], self.labels[rows]
        teacher_logits = self.objective.teacher_logits(self.model, inputs)
        loss = self.objective(self.model(inputs), labels, teacher_logits, rows)
        self.optimizer.zero_grad()
        loss.total.backward()
        self.optimizer.step()
        self.objective.after_step(self.model)
        self.losses.append(loss)
        return teacher_logits

    def epochs(self, first, last):
        for epoch in range(first, last):
            order = torch.randperm(N, generator=torch.Generator().manual_seed(epoch))
            for rows in order.split(8):
                self.step(rows)
            self.objective.after_epoch(self.model, epoch)
        return self


def weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


# The loop's order.


@pytest.mark.parametrize("method", REMEMBERING)
def test_a_forgotten_step_is_noticed_by_the_next_call(method):
    loop = Loop(method)
    rows = torch.arange(8)
    teacher_logits = loop.objective.teacher_logits(loop.model, loop.inputs[rows])
    loop.objective(loop.model(loop.inputs[rows]), loop.labels[rows], teacher_logits, rows).total.backward()
    with pytest.raises(InputError, match=r"after_step\(model\) was not called since the last loss"):
        loop.objective(loop.model(loop.inputs[rows]), loop.labels[rows], teacher_logits, rows)


@pytest.mark.parametrize("method", REMEMBERING)
def test_a_forgotten_epoch_is_noticed_when_a_batch_returns(method):
    loop = Loop(method)
    loop.step(torch.arange(8))
    loop.step(torch.arange(8, 16))
    with pytest.raises(InputError, match=r"every example of this batch returns, but after_epoch\(model, epoch\) was"):
        loop.step(torch.tensor([10, 3, 4]))
    loop.step(torch.tensor([20, 3, 21]))  # a sampler may repeat itself


@pytest.mark.parametrize("method", REMEMBERING)
def test_a_forgotten_epoch_shows_in_the_next_ones_number(method):
    loop = Loop(method).epochs(0, 1)
    for rows in torch.arange(N).repeat(2).split(8):
        loop.step(rows)
    with pytest.raises(InputError, match="epoch is 2; 1 comes after 0"):
        loop.objective.after_epoch(loop.model, 2)


def test_hooks_out_of_turn_are_refused():
    loop = Loop("mrkd")
    with pytest.raises(InputError, match="was called twice, or without a loss before it"):
        loop.objective.after_step(loop.model)
    loop.epochs(0, 2)
    with pytest.raises(InputError, match="epoch is 3; 2 comes after 1"):
        loop.objective.after_epoch(loop.model, 3)
    with pytest.raises(InputError, match=r"epoch is 1.5; it must be a whole number"):
        loop.objective.after_epoch(loop.model, 1.5)
    loop.objective(loop.model(loop.inputs), loop.labels)
    with pytest.raises(InputError, match=r"after_step\(model\) was not called .* and after_loss\(\) after each"):
        loop.objective(loop.model(loop.inputs), loop.labels)
    for _ in range(2):  # a step with two losses
        loop.objective.after_loss()
        with pytest.raises(InputError, match=r"after_loss\(\) was called twice, or without a loss before it"):
            loop.objective.after_loss()
        with pytest.raises(InputError, match="make the step and call it before after_epoch"):
            loop.objective.after_epoch(loop.model, 2)
        loop.objective(loop.model(loop.inputs), loop.labels)
    loop.objective.after_step(loop.model)
    for hook in (loop.objective.after_loss, lambda: loop.objective.after_step(loop.model)):
        with pytest.raises(InputError, match="without a loss before it"):
            hook()


@pytest.mark.parametrize("method", REMEMBERING)
def test_an_evaluation_needs_no_hook_and_leaves_nothing_behind(method):
    loops = [Loop(method).epochs(0, 2) for _ in range(2)]
    rows = torch.arange(N)
    with torch.no_grad():
        loops[0].model.eval()
        for _ in range(2):
            teacher_logits = loops[0].objective.teacher_logits(loops[0].model, loops[0].inputs)
            loops[0].objective(loops[0].model(loops[0].inputs), loops[0].labels, teacher_logits, rows)
        loops[0].model.train()
    ends = [weights(loop.epochs(2, 4).model) for loop in loops]
    assert torch.equal(*ends)


@pytest.mark.parametrize("method", REMEMBERING)
def test_a_resumed_loop_ends_bit_for_bit_where_an_undisturbed_one_does(method, tmp_path):
    constants = {"every": 1} if method.startswith("mrkd") else {}
    whole, half = Loop(method, **constants).epochs(0, 6), Loop(method, **constants).epochs(0, 3)
    state = {
        "model": half.model.state_dict(),
        "optimizer": half.optimizer.state_dict(),
        "objective": half.objective.state_dict(),
    }
    torch.save(state, tmp_path / "state.pt")
    half.epochs(3, 4)  # what goes on does not reach into the checkpoint
    state = torch.load(tmp_path / "state.pt")
    resumed = Loop(method, **constants)
    resumed.model.load_state_dict(state["model"])
    resumed.optimizer.load_state_dict(state["optimizer"])
    resumed.objective.load_state_dict(state["objective"])
    assert torch.equal(weights(resumed.epochs(3, 6).model), weights(whole.model))
    assert resumed.losses[-1].soft == whole.losses[-1].soft != 0


def test_the_state_of_another_method_is_refused():
    for one, other in (("mrkd", "ps-kd"), ("mrkd-tc", "mrkd"), ("beta-smoothing", "beta-smoothing-released")):
        with pytest.raises(InputError, match=f"state is of method '{other}', and this is '{one}'"):
            objective(one).load_state_dict(objective(other).state_dict())
    without_name = {k: v for k, v in objective("ps-kd").state_dict().items() if k != "method"}
    with pytest.raises(InputError, match=r"state is of another method: .*copies, table differ"):
        objective("mrkd").load_state_dict(without_name)


def test_two_objectives_share_no_memory():
    first, second = Loop("mrkd", every=1), objective("mrkd", every=1)
    first.epochs(0, 2)
    assert len(first.objective.memory.copies) == 2
    assert not second.memory.copies
    assert first.objective == second


@pytest.mark.parametrize("method", REMEMBERING)
def test_a_refused_batch_leaves_nothing_behind(method):
    loops = [Loop(method, **({"every": 1} if method.startswith("mrkd") else {})).epochs(0, 2) for _ in range(2)]
    bad = torch.full((N,), K)
    rows, nothing = torch.arange(N), torch.full((N, K), float("nan"))
    teacher_logits = loops[0].objective.teacher_logits(loops[0].model, loops[0].inputs)
    for logits, labels, message in (
        (torch.zeros_like(nothing), bad, "labels hold 4; they must be 0 to 3"),
        (nothing, loops[0].labels, "logits hold NaN"),
    ):
        with pytest.raises(InputError, match=message):
            loops[0].objective(logits.requires_grad_(), labels, teacher_logits, rows)
    assert torch.equal(*(weights(loop.epochs(2, 4).model) for loop in loops))


@pytest.mark.parametrize("method", REMEMBERING)
def test_an_objective_can_be_copied_and_sent(method):
    loop = Loop(method).epochs(0, 1)
    for twin in (copy.deepcopy(loop.objective), pickle.loads(pickle.dumps(loop.objective))):
        assert twin == loop.objective
        assert twin.memory.steps == loop.objective.memory.steps == 3


# What is remembered.


def test_mrkd_keeps_the_newest_copies_every_few_epochs():
    loop, snapshots = Loop("mrkd", copies=2, every=2), {}
    for epoch in range(7):
        loop.epochs(epoch, epoch + 1)
        snapshots[epoch] = copy.deepcopy(loop.model).eval()
        teacher_logits = loop.objective.teacher_logits(loop.model, loop.inputs)
        kept = [e for e in (1, 3, 5) if e <= epoch][-2:]
        assert (teacher_logits is None) == (not kept)
        if kept:
            expected = torch.stack([snapshots[e](loop.inputs) for e in kept])
            torch.testing.assert_close(teacher_logits, expected)
    assert loop.model.training
    first = loop.losses[:6]
    assert all(loss.soft == 0 for loss in first)
    torch.testing.assert_close(first[0].total, first[0].hard)
    assert all(loss.soft > 0 for loss in loop.losses[6:])


def test_before_the_first_copy_mrkd_is_cross_entropy():
    runs = [Loop("mrkd", every=3).epochs(0, 3), Loop("cross-entropy").epochs(0, 3)]
    assert torch.equal(weights(runs[0].model), weights(runs[1].model))


def test_copies_that_are_there_must_be_asked():
    loop = Loop("mrkd", every=1).epochs(0, 1)
    with pytest.raises(InputError, match=r"method 'mrkd' needs them; pass objective.teacher_logits\(model, inputs\)"):
        loop.objective(loop.model(loop.inputs), loop.labels)


def test_the_learned_ensemble_starts_as_the_mean_and_learns():
    loop = Loop("mrkd-fcn", copies=2, every=1).epochs(0, 2)
    teacher_logits = loop.objective.teacher_logits(loop.model, loop.inputs)
    memory = loop.objective.memory
    first = memory.join(teacher_logits)
    torch.testing.assert_close(first, teacher_logits.mean(0))
    for _ in range(50):
        memory.batches.append((teacher_logits, loop.labels))
        memory.learn(1.0)
    after = memory.join(teacher_logits)
    before, after = (nn.functional.cross_entropy(joined, loop.labels) for joined in (first, after))
    assert after < before - 0.1


def test_the_ensemble_learns_from_every_training_batch_and_no_other():
    loop = Loop("mrkd-fcn", every=1).epochs(0, 1)
    teacher_logits = loop.step(torch.arange(8))
    learned = loop.objective.memory.layer
    assert not torch.equal(learned, torch.eye(K))
    with torch.no_grad():
        loop.objective(loop.model(loop.inputs[:8]), loop.labels[:8], teacher_logits)
    assert torch.equal(loop.objective.memory.layer, learned)
    loop.objective.after_epoch(loop.model, 1)
    assert loop.objective.memory.layer is None  # a new copy: it starts as the mean again


def test_the_ensembles_step_is_that_of_autograd():
    memory = objective("mrkd-fcn").memory
    teacher_logits, labels = torch.randn(2, 8, K, dtype=torch.float64), torch.randint(K, (8,))
    memory.join(teacher_logits)
    memory.batches.append((teacher_logits, labels))
    memory.learn(0.3)
    layer = (torch.eye(K, dtype=torch.float64).repeat(2, 1) / 2).requires_grad_()
    inputs = torch.cat(list(teacher_logits), -1)
    nn.functional.cross_entropy(inputs @ layer, labels, reduction="sum").backward()
    torch.testing.assert_close(memory.layer, (layer - 0.3 * layer.grad / inputs.square().sum()).detach())


def test_the_adjusted_ensemble_is_always_right():
    loop = Loop("mrkd-fcn-ka", every=1).epochs(0, 1)
    teacher_logits = loop.objective.teacher_logits(loop.model, loop.inputs)
    batch = Batch(loop.model(loop.inputs), loop.labels, teacher_logits, None)
    assert (loop.objective.scores(teacher_logits, batch).argmax(-1) == loop.labels).all()


def test_ps_kd_learns_from_its_last_epoch():
    loop = Loop("ps-kd", alpha=0.8, epochs=4)
    remembered = {}
    for epoch in range(3):
        order = torch.randperm(N)
        alpha = 0.8 * (epoch + 1) / 4
        for rows in order.split(8):
            logits = loop.model(loop.inputs[rows])
            y = nn.functional.one_hot(loop.labels[rows], K).float()
            past = torch.stack([remembered.get(int(row), y[i]) for i, row in enumerate(rows)])
            target = (1 - alpha) * y + alpha * past
            expected = torch.autograd.grad(nn.functional.cross_entropy(logits, target), logits, retain_graph=True)[0]
            loss = loop.objective(logits, loop.labels[rows], index=rows)
            torch.testing.assert_close(torch.autograd.grad(loss.total, logits, retain_graph=True)[0], expected)
            new = dict(zip(rows.tolist(), logits.detach().softmax(-1), strict=True))
            loss.total.backward()
            loop.optimizer.step()
            loop.objective.after_step(loop.model)
            remembered |= new
        loop.objective.after_epoch(loop.model, epoch + 1)


def test_ps_kd_remembers_every_run_of_a_stack():
    stacked, alone = objective("ps-kd", epochs=2), objective("ps-kd", epochs=2)
    labels = torch.randint(K, (3, 6))
    for epoch in range(2):
        order = torch.stack([torch.randperm(6) for _ in range(3)])  # every run has its own
        for index in order.split(2, -1):
            logits, y = torch.randn(3, 2, K).requires_grad_(), labels.gather(-1, index)
            together = stacked(logits, y, index=index).total
            torch.testing.assert_close(together[1], alone(logits[1], y[1], index=index[1]).total)
            for one in (stacked, alone):
                one.after_step(None)
        for one in (stacked, alone):
            one.after_epoch(None, epoch)


def test_the_average_is_the_released_one():
    loop = Loop("beta-smoothing")
    average = weights(loop.model)
    for step in range(1, 6):
        loop.step(torch.arange(8) if step % 2 else torch.arange(8, 16))
        factor = min(1 - 1 / (step + 1), 0.999)
        average = factor * average + (1 - factor) * weights(loop.model)
        loop.objective.after_epoch(loop.model, step)
    kept = loop.objective.memory.average
    torch.testing.assert_close(torch.cat([kept[name].flatten() for name, _ in loop.model.named_parameters()]), average)


def test_the_average_runs_in_training_mode_and_touches_no_buffer_of_the_student():
    loop = Loop("beta-smoothing")
    loop.model.eval()
    before = copy.deepcopy(loop.model[1].state_dict())
    teacher_logits = loop.objective.teacher_logits(loop.model, loop.inputs)
    assert not loop.model.training
    assert all(torch.equal(before[name], value) for name, value in loop.model[1].state_dict().items())
    torch.testing.assert_close(
        teacher_logits, copy.deepcopy(loop.model).train()(loop.inputs)
    )  # it starts from the student


def test_the_released_average_starts_at_random():
    student, released = Loop("beta-smoothing"), Loop("beta-smoothing-released")
    state = torch.get_rng_state()
    ours = released.objective.teacher_logits(released.model, released.inputs)
    assert torch.equal(torch.get_rng_state(), state)
    theirs = student.objective.teacher_logits(student.model, student.inputs)
    assert (ours - theirs).abs().max() > 0.1
    again = Loop("beta-smoothing-released")
    torch.testing.assert_close(again.objective.teacher_logits(again.model, again.inputs), ours)
    released.epochs(0, 2)


def test_a_module_that_cannot_start_at_random_is_named():
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.factor = nn.Parameter(torch.ones(1))

        def forward(self, inputs):
            return self.factor * inputs

    model = nn.Sequential(nn.Linear(D, K), Scale())
    with pytest.raises(InputError, match=r"module '1' \(Scale\) has no reset_parameters"):
        MovingAverage(random_start=True).teach(model, torch.randn(2, D))


def test_the_more_confident_example_is_smoothed_less():
    torch.manual_seed(0)
    smoothing = objective("beta-smoothing", alpha=1.0)
    logits, labels = torch.zeros(200, K).requires_grad_(), torch.zeros(200, dtype=torch.int64)
    teacher_logits = torch.zeros(200, K)
    teacher_logits[:, 0] = torch.linspace(-5, 5, 200)
    smoothing(logits, labels, teacher_logits).total.backward()
    shares = 1 / K - 200 * logits.grad[:, 0]  # the gradient is p − q
    assert (shares.diff() >= -1e-6).all()
    assert shares.mean().item() == pytest.approx(0.75, abs=0.05)
    torch.manual_seed(0)
    shuffled = objective("beta-smoothing-shuffled", alpha=1.0)
    again = torch.zeros(200, K).requires_grad_()
    shuffled(again, labels).total.backward()
    torch.testing.assert_close((1 / K - 200 * again.grad[:, 0]).sort().values, shares.sort().values)
    assert ((1 / K - 200 * again.grad[:, 0]).diff() < 0).any()


@pytest.mark.parametrize("method", ["lsr", "kd-weighted", "zipf"])
def test_a_method_without_memory_lives_in_the_same_loop(method):
    loop = Loop(method)
    assert loop.objective.teacher_logits(loop.model, loop.inputs) is None
    assert loop.objective.state_dict() == {}
    loop.objective.after_step(loop.model)
    loop.objective.after_epoch(loop.model, 0)
    loop.objective.load_state_dict({})


@pytest.mark.parametrize("method", ["mrkd", "mrkd-fcn"])
def test_a_class_that_the_network_masks_is_as_if_it_were_not_there(method):
    masked, without = (Loop(method, every=1) for _ in range(2))
    masked.labels = without.labels = masked.labels.clamp_max(K - 2)
    head, fewer = masked.model[-1], nn.Linear(8, K - 1)
    fewer.load_state_dict({name: tensor[:-1] for name, tensor in head.state_dict().items()})
    masked.model.append(Plus(torch.tensor([0.0] * (K - 1) + [-torch.inf])))
    without.model[-1] = fewer
    for loop in (masked, without):
        loop.optimizer = torch.optim.SGD(loop.model.parameters(), lr=0.1, momentum=0.9)
        loop.epochs(0, 3)
    totals = [[loss.total.item() for loss in loop.losses] for loop in (masked, without)]
    assert totals[0] == pytest.approx(totals[1], rel=1e-5)


class Plus(nn.Module):
    """Adds a constant."""

    def __init__(self, constant):
        super().__init__()
        self.constant = constant

    def forward(self, logits):
        return logits + self.constant
