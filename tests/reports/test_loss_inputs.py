"""What people pass to losses: layouts, labels, constants and names from public reports."""

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, one_hot

from lsr_core import METHODS, InputError, objective, teachers
from lsr_core.objectives import as_label_smoothing, describe


@pytest.fixture
def dense(generator):
    logits = torch.randn(2, 5, 5, 5, generator=generator, dtype=torch.float64)
    return logits, torch.randint(5, (2, 5, 5), generator=generator)


# Segmentation: with as many classes as rows and columns the class axis is guessed, and another loss comes out.
def test_the_class_axis_is_asked_for_where_it_could_be_two(dense):
    logits, labels = dense
    with pytest.raises(InputError, match="on axis 1 or on the last; say class_axis=1 or class_axis=-1"):
        objective("lsr")(logits, labels)
    assert objective("lsr")(logits[0], labels[0]).total.shape == (5,)  # five runs of five examples
    ours = objective("lsr")(logits, labels, class_axis=1).total
    assert ours.shape == ()
    smoothed = cross_entropy(logits, labels, label_smoothing=0.1) - 0.1 * np.log(5)
    assert ours.item() == pytest.approx(smoothed.item())
    last = objective("lsr")(logits, labels, class_axis=-1).total
    assert last.shape == (2, 5)
    assert last.mean().item() != pytest.approx(ours.item(), rel=1e-3)
    run = objective("lsr")(logits[0], labels[0]).total  # three axes are runs, examples, classes, as in every batch
    torch.testing.assert_close(run, last[0])


def test_the_class_axis_of_other_shapes(generator):
    logits, teacher = torch.randn(2, 2, 7, 3, 4, generator=generator).unbind()
    labels = torch.randint(7, (2, 3, 4), generator=generator)
    with pytest.raises(InputError, match=r"must be \[2, 7, 3\]; with the classes on axis 1, say class_axis=1"):
        objective("kd")(logits, labels, teacher)
    flat = [values.movedim(1, -1).reshape(-1, 7) for values in (logits, teacher)]
    expected = objective("kd")(flat[0], labels.flatten(), flat[1]).total
    for axis in (1, -3):
        torch.testing.assert_close(objective("kd")(logits, labels, teacher, class_axis=axis).total, expected)
    mixed = one_hot(labels, 7).movedim(-1, 1).float()
    torch.testing.assert_close(objective("kd")(logits, mixed, teacher, class_axis=1).total, expected)
    for axis in (4, -5, True, "1"):
        with pytest.raises(InputError, match=r"class_axis is .*; it must be an axis of the logits"):
            objective("kd")(logits, labels, teacher, class_axis=axis)


# A constant out of an array is refused for not being a number "from 0 to 1", which it is.
@pytest.mark.parametrize("kind", [np.float32, np.float64, np.array, torch.tensor])
def test_scalars_of_arrays_are_constants(kind):
    for method, constants in (
        ("lsr", {"epsilon": 0.25}),
        ("lsrkd-tc", {"alpha": 0.5, "temperature": 2.0, "gap": 3.0}),
        ("lsrkd-tc-share", {"share": 0.5}),
        ("tf-kd-reg", {"correct": 0.75}),
        ("kd-weighted", {"soft_weight": 0.5}),
    ):
        given = objective(method, **{name: kind(value) for name, value in constants.items()})
        assert given == objective(method, **constants)
        assert all(type(value) in (str, float) for value in describe(given).values())
    assert teachers.CorrectedUniform(kind(0.5)).share(10, 1.0) == 0.5
    assert teachers.TargetGap(kind(0.5)) == teachers.TargetGap(0.5)
    assert teachers.VirtualTeacher(kind(0.5)) == teachers.VirtualTeacher(0.5)


def test_whole_numbers_of_arrays_are_constants():
    for three in (np.int64(3), np.uint8(3), torch.tensor(3)):
        assert objective("mrkd", copies=three) == objective("mrkd", copies=3)


@pytest.mark.parametrize(
    ("method", "constants", "message"),
    [
        ("lsrkd-tc", {"gap": "6"}, "gap is '6', of type str; it must be a finite number, 0 or above"),
        ("lsrkd-tc", {"gap": None}, "gap is None"),
        ("lsrkd-tc", {"gap": True}, "gap is True"),
        ("lsrkd-tc-share", {"share": "0.3"}, "share is '0.3'"),
        ("lsrkd", {"temperature": [4]}, r"temperature is \[4\]"),
        ("lsr", {"epsilon": np.array([0.1])}, r"epsilon is array\(\[0.1\]\)"),
        ("lsr", {"epsilon": np.bool_(True)}, "epsilon is True"),
        ("lsr", {"epsilon": np.str_("0.1")}, "epsilon is '0.1'"),
        ("tf-kd-reg", {"correct": "most"}, "correct is 'most'"),
    ],
)
def test_constants_of_a_wrong_kind_are_refused_in_a_sentence(method, constants, message):
    with pytest.raises(InputError, match=message):
        objective(method, **constants)


def test_teachers_of_a_wrong_kind_are_refused_in_a_sentence():
    with pytest.raises(InputError, match="gap is '6'"):
        teachers.TargetGap("6")
    with pytest.raises(InputError, match="unknown reading 'powers'; there are power, logits"):
        teachers.VirtualTeacher(0.9, "powers")


# Mixup makes labels that are distributions, and the loss takes class numbers only.
@pytest.mark.parametrize("method", sorted(METHODS))
def test_mixed_labels_have_a_loss_or_a_sentence(method, generator):
    logits, teacher = torch.randn(2, 8, 6, generator=generator, dtype=torch.float64)
    logits.requires_grad_()
    first, second = torch.randint(6, (2, 8), generator=generator)
    mixed = 0.7 * one_hot(first, 6) + 0.3 * one_hot(second, 6)
    index = torch.arange(8)
    loss = objective(method)
    if not loss.takes_mixtures:
        with pytest.raises(InputError, match=r"one class an example: add λ \* objective\(logits, first\).total"):
            loss(logits, mixed, teacher, index)
        return
    parts = [loss(logits, labels, teacher, index).total for labels in (first, second)]
    ours, expected = loss(logits, mixed, teacher, index).total, 0.7 * parts[0] + 0.3 * parts[1]
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-7)
    gradients = [torch.autograd.grad(total, logits)[0] for total in (ours, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-7)


def test_mixed_labels_are_taken_where_they_have_a_meaning(generator):
    methods = {"cross-entropy", "lsr", "lsrkd", "kd", "kd-unscaled", "soft-only", "self-distillation"}
    assert methods <= {name for name in METHODS if objective(name).takes_mixtures}
    logits = torch.randn(3, 8, 6, generator=generator)
    targets = logits.flip(0).softmax(-1)
    ours = objective("lsr", epsilon=0.2)(logits, targets).total
    expected = cross_entropy(logits.flatten(0, 1), targets.flatten(0, 1), label_smoothing=0.2) - 0.2 * np.log(6)
    assert ours.mean().item() == pytest.approx(expected.item(), rel=1e-5)
    hidden = logits.masked_fill(torch.arange(6) == 2, -np.inf).requires_grad_()
    total = objective("cross-entropy")(hidden, hidden.detach().softmax(-1)).total.sum()
    assert torch.autograd.grad(total, hidden)[0].isfinite().all()


@pytest.mark.parametrize(
    "change", [lambda t: 2 * t, lambda t: t - 0.1, lambda t: t / 0, lambda t: t.T.contiguous().T * 0]
)
def test_mixed_labels_that_are_no_distribution_are_refused(change, generator):
    targets = change(torch.randn(4, 6, generator=generator).softmax(-1))
    with pytest.raises(InputError, match="labels hold a row that is no distribution"):
        objective("lsr")(torch.zeros(4, 6), targets)


# People look for a method under the name that its paper, or another library, has for it.
@pytest.mark.parametrize(
    ("name", "method"),
    [
        *(
            ("label-smoothing", "lsr"),
            ("label_smoothing", "lsr"),
            ("Label Smoothing", "lsr"),
            ("labelsmoothing", "lsr"),
        ),
        *(("knowledge-distillation", "kd"), ("CE", "cross-entropy"), ("crossentropy", "cross-entropy"), ("KD", "kd")),
        *(("born-again", "self-distillation"), ("tf-kd", "tf-kd-reg"), ("pskd", "ps-kd"), ("LSR", "lsr")),
    ],
)
def test_a_common_name_suggests_the_method(name, method):
    with pytest.raises(InputError, match=f"unknown method '{name}'; did you mean '{method}'"):
        objective(name)


@pytest.mark.parametrize("name", [None, 3, ["lsr"], {}])
def test_a_name_that_is_no_string_is_unknown(name):
    with pytest.raises(InputError, match="unknown method"):
        objective(name)


# A released constant that belongs to one number of classes is used with another.
def test_the_released_multiplier_is_warned_of_where_it_does_not_belong(generator):
    labels = torch.randint(10, (8,), generator=generator)
    released = objective("tf-kd-reg-released")
    assert as_label_smoothing(released, 10) == pytest.approx((0.52, 1.9), abs=0.01)
    with pytest.warns(UserWarning, match="multiplier is 100, released for 100 classes; with 10 .*multiplier=10 "):
        released(torch.zeros(8, 10), labels)


@pytest.mark.filterwarnings("error")
def test_a_multiplier_that_belongs_is_not_warned_of(generator):
    labels = torch.randint(10, (8,), generator=generator)
    objective("tf-kd-reg-released")(torch.zeros(8, 100), labels)
    objective("tf-kd-reg-released", multiplier=10)(torch.zeros(8, 10), labels)
