import math

import pytest
import torch
from torch import nn

from lsr_core import InputError, objective
from lsr_core.objectives import as_label_smoothing
from study import released_code

K = 100

# Printed effective weights of the released CIFAR-100 configurations: (w_CE, w_KL on the batch mean).
PRINTED = {
    ("MobileNetV2", "Tf-KD_reg"): (0.05, 0.0095),
    ("ShuffleNetV2", "Tf-KD_reg"): (0.05, 0.0095),
    ("ResNet18", "Tf-KD_reg"): (0.9, 0.10),
    ("GoogLeNet", "Tf-KD_reg"): (0.9, 0.05),
    ("DenseNet121", "Tf-KD_reg"): (0.9, 0.001),
    ("ResNeXt29, ResNeXt101", "Tf-KD_reg"): (0.5, 0.005),
    ("MobileNetV2, ShuffleNetV2", "Tf-KD_self"): (0.05, 3.8),
    ("ResNet18", "Tf-KD_self"): (0.05, 17.1),
    ("ResNet50", "Tf-KD_self"): (0.05, 0.342),
    ("GoogLeNet", "Tf-KD_self"): (0.6, 80),
    ("DenseNet121", "Tf-KD_self"): (0.1, 180),
    ("ResNeXt29", "Tf-KD_self"): (0.1, 360),
    ("AlexNet", "Tf-KD_self"): (0.9, 0.4),
    ("MobileNetV2, ShuffleNetV2", "KD"): (0.05, 3.8),
    ("ResNet18, ResNet50, DenseNet121, ResNeXt29", "KD, Re-KD"): (0.4, 2.4),
    ("ResNet18 from DenseNet121", "KD"): (0.05, 0.342),
    ("plain CNN", "KD"): (0.1, 3.6),
}


@pytest.mark.parametrize("configuration", released_code.CONFIGURATIONS, ids=lambda c: f"{c.student}-{c.mode}")
def test_effective_weights_are_the_printed_ones(configuration):
    expected = PRINTED[configuration.student, configuration.mode]
    assert configuration.objective.weights(K) == pytest.approx(expected, rel=1e-9)


def elementwise_mean(log_p, q):
    """What `nn.KLDivLoss()` did by default when the code was written: a mean over classes too."""
    with pytest.warns(UserWarning, match="divides the total loss by both the batch size and the support size"):
        return nn.KLDivLoss(reduction="mean")(log_p, q)


@pytest.mark.parametrize("configuration", released_code.CONFIGURATIONS, ids=lambda c: f"{c.student}-{c.mode}")
def test_the_released_loss_is_the_released_arithmetic(configuration, generator):
    """The steps of `my_loss_function.py`, written out, with torch's own KL module."""
    logits, teacher = (3 * torch.randn(32, K, generator=generator, dtype=torch.float64) for _ in range(2))
    labels = torch.randint(K, (32,), generator=generator)
    alpha, tau, m = configuration.alpha, configuration.temperature, configuration.multiplier or 1
    hard = (1 - alpha) * nn.functional.cross_entropy(logits, labels)
    if configuration.mode == "Tf-KD_reg":
        made = torch.full_like(logits, 0.01 / (K - 1)).scatter(1, labels[:, None], 0.99)
        soft = alpha * m * elementwise_mean(logits.log_softmax(1), (made / tau).softmax(1))
    else:
        soft = alpha * tau**2 * m * elementwise_mean((logits / tau).log_softmax(1), (teacher / tau).softmax(1))
    loss = configuration.objective(logits, labels, teacher)
    torch.testing.assert_close(loss.total, hard + soft, rtol=1e-10, atol=1e-14)


def test_zhangs_released_loss_is_the_released_arithmetic_without_its_constant(generator):
    logits, teacher = (3 * torch.randn(32, K, generator=generator, dtype=torch.float64) for _ in range(2))
    labels = torch.randint(K, (32,), generator=generator)
    q = (teacher / 4).softmax(1)
    released_loss = 0.6 * nn.functional.cross_entropy(logits, labels) + 0.4 * nn.functional.cross_entropy(logits, q)
    entropy = -(q * q.log()).sum(1).mean()
    loss = objective("self-distillation-released")(logits, labels, teacher)
    torch.testing.assert_close(loss.total + 0.4 * entropy, released_loss)


def test_soft_gradients_are_as_large_as_the_weights_say():
    table = released_code.losses_table(0.9, [4.0, 20.0], K)
    pull = table["pull, τ = 20"]
    assert pull["Hinton 2015"] == 1
    assert pull["Yuan 2020, paper"] == pytest.approx(1 / 400)
    assert pull["Yuan 2020, code"] == pytest.approx(1 / K)
    assert pull["Chandrasegaran 2022, code"] == pytest.approx(1 / 0.9)
    assert math.isinf(table.loc["Shen 2021", "s/h, τ = 4"])
    assert table.loc["Kim 2021, code", "s/h, τ = 4"] == pytest.approx(9)


def test_the_tables_hold_the_printed_numbers():
    teacher = released_code.virtual_teacher_table([10, 100], [20])
    assert teacher.loc[(100, 20), "released: right"] == pytest.approx(0.010502, abs=6e-7)
    assert teacher.loc[(10, 20), "power: wrong"] == pytest.approx(0.096113, abs=6e-7)
    configurations = released_code.configurations_table()
    epsilon, scale = as_label_smoothing(released_code.CONFIGURATIONS[0].objective, K)
    row = configurations.loc[("MobileNetV2", "Tf-KD_reg")]
    assert (row["ε"], row["loss scale"]) == (epsilon, scale)
    assert configurations.loc[("ResNet50", "Tf-KD_self"), "multiplier"] == "missing: 1"
    assert math.isnan(configurations.loc[("ResNet50", "Tf-KD_self"), "ε"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.9, [], 100), r"temperatures is \[\]; give a list of at least one number"),
        ((0.9, "4", 100), "temperatures is '4'"),
        ((0.9, [0], 100), "temperature is 0"),
        ((1.5, [4], 100), "alpha is 1.5"),
        ((0.9, [4], "ten"), "classes is 'ten', of type str; it must be a whole number, 2 or above"),
    ],
)
def test_a_table_that_cannot_be_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        released_code.losses_table(*arguments)
