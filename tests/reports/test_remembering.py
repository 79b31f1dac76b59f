"""Methods that remember: precision, random numbers, what cannot be remembered, and networks of every build."""

import copy

import pytest
import torch
from torch import nn

from lsr_core import METHODS, InputError, objective

REMEMBERING = [name for name in METHODS if objective(name).memory is not None]
ENSEMBLES = ["mrkd-fcn", "mrkd-fcn-ka"]
DRAWING = ["beta-smoothing", "beta-smoothing-released", "beta-smoothing-shuffled"]
K = 5


def remembering(method):
    return objective(method, **({"every": 1} if method.startswith("mrkd") else {}))


def loss_of(method, model, inputs, labels, index=None):
    return method(model(inputs), labels, method.teacher_logits(model, inputs), index)


def trained(method, model, inputs, labels, epochs=2):
    """A few steps of gradient descent, each an epoch of one batch; the model and its copy of a step before the end."""
    before, index = None, torch.arange(len(labels))
    for epoch in range(epochs):
        before = copy.deepcopy(model)
        loss_of(method, model, inputs, labels, index).total.backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.1 * parameter.grad
                parameter.grad = None
        method.after_step(model)
        method.after_epoch(model, epoch)
    return before


# Precision.


# An exponential average of a bf16 network stopped at .25 where the weights were 1.
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_average_of_a_half_precision_network_arrives(dtype):
    method, model = objective("beta-smoothing", decay=0.999), nn.Linear(2, K)
    nn.init.zeros_(model.weight), nn.init.zeros_(model.bias)
    model.to(dtype)
    method.teacher_logits(model, torch.zeros(1, 2, dtype=dtype))
    nn.init.ones_(model.weight)
    method.memory.steps = 2000  # the first steps' averages are of few
    for _ in range(3000):
        method.memory.update(model, 0.999)
    average = method.memory.average["weight"]
    torch.testing.assert_close(average, torch.full((K, 2), 1 - 0.999**3000), rtol=1e-3, atol=0)
    assert method.teacher_logits(model, torch.ones(1, 2, dtype=dtype)).dtype == dtype


# The learned ensemble multiplied its logits in bf16 when the loss stood under autocast.
@pytest.mark.parametrize("name", ENSEMBLES)
def test_an_ensemble_under_autocast_is_that_of_single_precision(name):
    teacher_logits, logits, labels = torch.randn(2, 32, K), torch.randn(32, K).requires_grad_(), torch.randint(K, (32,))
    losses, layers = [], []
    for half in (False, True):
        method = remembering(name)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            for _ in range(3):
                losses.append(method(logits, labels, teacher_logits).total)
                method.after_step(None)
        layers.append(method.memory.layer)
    assert torch.equal(*layers)
    torch.testing.assert_close(losses[3:], losses[:3], rtol=1e-7, atol=0)


# Copies of a bf16 network teach what a float32 network with the same logits would.
@pytest.mark.parametrize("name", [name for name in REMEMBERING if name.startswith("mrkd")])
def test_half_precision_copies_teach_in_single_precision(name):
    teacher_logits, logits, labels = (
        torch.randn(2, 32, K).bfloat16(),
        torch.randn(32, K).bfloat16(),
        torch.randint(K, (32,)),
    )
    half, single = (
        remembering(name)(logits, labels, teacher_logits).total,
        remembering(name)(logits.float(), labels, teacher_logits.float()).total,
    )
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, single, rtol=1e-6, atol=0)


# A bf16 network's past predictions were rounded to three digits before they were kept.
def test_predictions_are_kept_in_single_precision():
    method, logits = objective("ps-kd"), (5 * torch.randn(6, K)).bfloat16().requires_grad_()
    method(logits, torch.zeros(6, dtype=torch.int64), index=torch.arange(6))
    method.after_step(None)
    torch.testing.assert_close(method.memory.table[:6], logits.detach().float().log_softmax(-1))


# Random numbers.


def draws(method, seed):
    """A training loss after `torch.manual_seed`."""
    torch.manual_seed(seed)
    logits, labels = torch.zeros(8, K).requires_grad_(), torch.zeros(8, dtype=torch.int64)
    method(logits, labels, torch.arange(8.0)[:, None].expand(8, K) * torch.eye(K)[0]).total.backward()
    return logits.grad


# Five runs with five seeds had one and the same Beta draws.
@pytest.mark.parametrize("name", DRAWING)
def test_draws_follow_torchs_seed(name):
    found = [draws(objective(name), seed) for seed in range(5)]
    assert len({tuple(one.flatten().tolist()) for one in found}) == 5
    assert torch.equal(draws(objective(name), 3), found[3])


# A stream of one's own is neither touched by torch's seed nor touches it.
@pytest.mark.parametrize("name", DRAWING)
def test_draws_follow_a_generator_that_is_given(name):
    found = []
    for own, seed in ((1, 1), (1, 2), (2, 2)):
        method = objective(name)
        method.memory.generators = [torch.Generator().manual_seed(own)]
        found.append(draws(method, seed))
        assert torch.equal(torch.get_rng_state(), torch.Generator().manual_seed(seed).get_state())
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[1], found[2])


# The released average of weights was the same for every seed.
def test_the_random_start_follows_torchs_seed_and_uses_nothing_up():
    model, x, found = nn.Linear(3, K), torch.randn(4, 3), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(objective("beta-smoothing-released").teacher_logits(model, x))
        assert torch.equal(torch.get_rng_state(), torch.Generator().manual_seed(seed).get_state())
    assert torch.equal(found[0], found[1])
    assert (found[1] - found[2]).abs().max() > 0.01


# A validation loss, or a call that was refused, changed the draws of the training that followed.
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("name", DRAWING)
def test_only_a_training_loss_draws(name, own):
    method, labels, teacher_logits = objective(name), torch.zeros(8, dtype=torch.int64), torch.randn(8, K)
    if own:
        method.memory.generators = [torch.Generator().manual_seed(3)]
    stream = method.memory.streams[0]
    before, good = stream.get_state(), torch.randn(8, K, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        seen = [method(good, labels, teacher_logits).total for _ in range(2)]
    assert seen[0] == seen[1]
    for logits, teacher in ((good * torch.nan, teacher_logits), (good, None), (good, teacher_logits * torch.nan)):
        if name.endswith("shuffled") and logits is good:
            continue  # it has no teacher
        with pytest.raises(InputError):
            method(logits.clone().requires_grad_(), labels, teacher)
    assert torch.equal(stream.get_state(), before)
    method(good.requires_grad_(), labels, teacher_logits)
    assert not torch.equal(stream.get_state(), before)


# With torch's own stream a checkpoint is whole when that stream is saved too, as for dropout.
@pytest.mark.parametrize("name", DRAWING)
def test_a_loop_goes_on_from_its_state_and_torchs(name):
    whole = objective(name)
    draws(whole, 1)
    whole.after_step(nn.Linear(2, K))
    state, random = copy.deepcopy(whole.state_dict()), torch.get_rng_state()
    ends = []
    for method in (whole, objective(name)):
        method.load_state_dict(state)
        torch.set_rng_state(random)
        logits = torch.zeros(8, K, requires_grad=True)
        ends.append(method(logits, torch.zeros(8, dtype=torch.int64), torch.randn(8, K)).total)
    assert torch.equal(*ends)


# What cannot be.


# A teacher that is no number was ranked like any other.
@pytest.mark.parametrize("name", DRAWING[:2])
@pytest.mark.parametrize(("value", "said"), [(torch.nan, "NaN"), (torch.inf, "infinite"), (-torch.inf, "infinite")])
@pytest.mark.parametrize("trains", [False, True])
def test_a_teacher_without_numbers_is_refused(name, value, said, trains):
    teacher_logits = torch.randn(8, K)
    teacher_logits[2, 0] = value
    with pytest.raises(InputError, match=f"teacher_logits hold {said}"):
        objective(name)(torch.randn(8, K, requires_grad=trains), torch.zeros(8, dtype=torch.int64), teacher_logits)


# PS-KD distilled bare labels without a warning where every epoch shows another part of the data.
def test_ps_kd_says_which_examples_it_had_no_prediction_of():
    method = objective("ps-kd", epochs=4)
    for epoch, rows in enumerate(([0, 1, 2], [2, 3, 4], [0, 1])):
        index = torch.tensor(rows)
        logits = torch.randn(len(rows), K, requires_grad=True)
        method(logits, index, index=index)
        method.after_step(None)
        if epoch == 0:
            first = logits.detach().log_softmax(-1)
        if epoch == 1:
            with pytest.warns(UserWarning, match="epoch 1 showed 2 examples for the first time; having no prediction"):
                method.after_epoch(None, epoch)
        else:
            method.after_epoch(None, epoch)
        if epoch < 2:  # what was seen in an earlier epoch than the last is still known
            index = torch.tensor([0, 1])
            torch.testing.assert_close(method.memory.recall(torch.zeros(2, K), index, index), first[:2])


# An epoch's number from numpy was refused as no whole number.
def test_an_epochs_number_may_come_from_numpy():
    method = objective("mrkd")
    for epoch in torch.arange(3).numpy():
        method.after_epoch(None, epoch)
    method.after_epoch(None, 3)


# Networks of every build.


class Tied(nn.Module):
    """A network whose last layer is its embedding."""

    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(K, 4), nn.Linear(4, K, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, inputs):
        return self.head(self.embedding(inputs.long().remainder(K)).mean(1))


class Shared(nn.Module):
    """A network that goes through one block, with BatchNorm, twice."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.ReLU())
        self.second, self.head = self.first, nn.Linear(6, K)

    def forward(self, inputs):
        return self.head(self.second(self.first(inputs)))


class Attention(nn.Module):
    """Attention between three tokens."""

    def __init__(self):
        super().__init__()
        self.attention, self.head = nn.MultiheadAttention(2, 1, batch_first=True), nn.Linear(2, K)

    def forward(self, inputs):
        tokens = inputs.unflatten(-1, (3, 2))
        return self.head(self.attention(tokens, tokens, tokens)[0].mean(1))


class Recurrent(nn.Module):
    """An LSTM, which keeps a list of its weights beside them."""

    def __init__(self):
        super().__init__()
        self.cells, self.head = nn.LSTM(2, 4, batch_first=True), nn.Linear(4, K)

    def forward(self, inputs):
        return self.head(self.cells(inputs.unflatten(-1, (3, 2)))[0][:, -1])


class Token(nn.Module):
    """A network with a parameter of its own, as transformers for images have."""

    def __init__(self):
        super().__init__()
        self.token, self.head = nn.Parameter(torch.zeros(1, 6)), nn.Linear(6, K)

    def forward(self, inputs):
        return self.head(inputs + self.token)


def parallel():
    return nn.DataParallel(nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Linear(6, K)))


BUILDS = [Tied, Shared, Attention, Recurrent, Token, parallel]


# Tied weights, shared modules and DataParallel ended in torch's "multiple values for keys" or "stateless API".
@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("name", [name for name in REMEMBERING if name != "beta-smoothing-released"])
def test_any_network_is_remembered_and_stays_itself(name, build):
    torch.manual_seed(0)
    model, inputs, labels, method = build(), 3 * torch.randn(12, 6), torch.randint(K, (12,)), remembering(name)
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    before = trained(method, model, inputs, labels)
    here = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    assert all(here[name] is tensor for name, tensor in tensors.items())
    if name.startswith("mrkd"):
        teacher_logits = method.teacher_logits(model, inputs)
        expected = torch.stack([network.eval()(inputs) for network in (before, copy.deepcopy(model))])
        torch.testing.assert_close(teacher_logits, expected)


# Whatever a network shares, its average is that of its weights, step by step.
@pytest.mark.parametrize("build", BUILDS)
def test_the_average_of_any_network_is_its_weights_average(build):
    torch.manual_seed(0)
    model, inputs, labels, method = (
        build(),
        3 * torch.randn(12, 6),
        torch.randint(K, (12,)),
        remembering("beta-smoothing"),
    )
    average = copy.deepcopy(model).train()
    for step in range(1, 4):
        torch.testing.assert_close(method.teacher_logits(model, inputs), average(inputs))
        loss_of(method, model, inputs, labels).total.backward()
        with torch.no_grad():
            for own, parameter in zip(average.parameters(), model.parameters(), strict=True):
                parameter -= parameter.grad
                parameter.grad = None
                own.lerp_(parameter, 1 / (step + 1))
        method.after_step(model)


# The released average asks for a random start, which attention could not have and a bare parameter has no rule for.
@pytest.mark.parametrize("build", BUILDS)
def test_the_released_average_starts_at_random_or_says_what_to_pass(build):
    torch.manual_seed(0)
    model, inputs, method = build(), torch.randn(12, 6), remembering("beta-smoothing-released")
    if build is Token:
        with pytest.raises(InputError, match=r"'model' \(Token\) has no reset_parameters .* objective.memory.start\("):
            method.teacher_logits(model, inputs)
        other = build()
        method.memory.start(other)
        torch.testing.assert_close(method.teacher_logits(model, inputs), other(inputs))
    else:
        assert (method.teacher_logits(model, inputs) - copy.deepcopy(model)(inputs)).abs().max() > 1e-3
    trained(method, model, inputs, torch.randint(K, (12,)))


# The start's rule for attention is torch's own: its parts first, then the whole.
def test_attention_starts_as_torch_makes_it():
    model, method = Attention(), remembering("beta-smoothing-released")
    nn.init.ones_(model.attention.out_proj.bias)
    method.teacher_logits(model, torch.randn(4, 6))
    assert not method.memory.average["attention.out_proj.bias"].any()
    assert method.memory.average["attention.in_proj_weight"].abs().max() <= (6 / (2 + 6)) ** 0.5


# A validation pass before the first step, in inference mode, left tensors that no step can change.
@pytest.mark.parametrize("name", REMEMBERING)
def test_a_first_look_in_inference_mode_does_no_harm(name):
    ends = []
    for looks in (False, True):
        torch.manual_seed(0)
        model, inputs, labels, method = (
            Shared().bfloat16(),
            torch.randn(12, 6).bfloat16(),
            torch.randint(K, (12,)),
            remembering(name),
        )
        if looks:
            with torch.inference_mode():
                loss_of(method, model.eval(), inputs, labels, torch.arange(12))
                model.train()
        trained(method, model, inputs, labels, epochs=3)
        ends.append([parameter.detach() for parameter in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))
