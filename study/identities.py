"""Identities: exact statements, checked in float64 in value and gradient.

Each compares two losses of random logits, labels and teachers, or measures how far apart they are.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from lsr_core.losses import cross_entropy, divergence, kl_divergence, smoothed_labels
from lsr_core.objectives import Objective, as_label_smoothing, objective
from lsr_core.teachers import TargetGap, mean_scores, probabilities


@dataclass(frozen=True)
class Identity:
    """An exact statement; `error` computes the largest relative error over float64 draws, in value and gradient.

    A statement that two things *differ* holds where `error`, their relative distance, is above the tolerance.
    """

    id: str
    paper: str
    text: str
    chapter: str
    error: Callable[[], float]
    tolerance: float = 1e-9
    differ: bool = False

    def holds(self, error: float) -> bool:
        """Whether this error proves the statement."""
        return error > self.tolerance if self.differ else error <= self.tolerance

    def effect(self, error: float) -> str:
        """The error as it is printed."""
        return f"relative distance {error:.2g}" if self.differ else f"largest relative error {error:.0e}"


_CLASSES, _DRAWS = 10, 64
_Losses = Callable[[Tensor], Tensor]  # of logits `[B, K]`, a value a row


def _draw(classes: int = _CLASSES) -> tuple[Tensor, Tensor, Tensor]:
    """Student logits and teacher logits `[64, K]`, and labels."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(_DRAWS, classes, generator=generator, dtype=torch.float64) * 3 for _ in range(2))
    labels = torch.randint(classes, (_DRAWS,), generator=generator)
    return student.requires_grad_(), teacher, labels


def _one_hot(labels: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(labels, _CLASSES).double()


def _by_row(loss: Objective, logits: Tensor, labels: Tensor) -> Tensor:
    """An objective's value on every row `[B]`: each row is a stack of its own, with a batch of one."""
    return loss(logits[:, None], labels[:, None]).total


def compare(first: Tensor, second: Tensor, logits: Tensor) -> float:
    """The largest relative error between two losses `[B]` of the same logits, up to a constant, and their gradients."""
    offset = (first - second).detach()
    value = ((offset - offset.mean()).norm() / second.detach().norm()).item()
    gradients = [torch.autograd.grad(loss.sum(), logits, retain_graph=True)[0] for loss in (first, second)]
    return max(value, ((gradients[0] - gradients[1]).norm() / gradients[1].norm()).item())


def _compare_up_to_rows(first: Callable[[Tensor], Tensor], second: Callable[[Tensor], Tensor], logits: Tensor) -> float:
    """As `compare`, where every row may have a constant of its own: the difference at logits that are all zero."""
    constants = first(torch.zeros_like(logits)) - second(torch.zeros_like(logits))
    return compare(first(logits) - constants, second(logits), logits)


def _compare_with_smoothing(loss: Objective, logits: Tensor, labels: Tensor) -> float:
    """`compare` of a method and of the label smoothing, with its ε and loss scale, that it is said to be."""
    epsilon, scale = as_label_smoothing(loss, logits.shape[-1])
    smoothed = scale * _by_row(objective("lsr", epsilon=epsilon), logits, labels)
    return compare(_by_row(loss, logits, labels), smoothed, logits)


def _smoothing_is_distillation() -> float:
    logits, _, labels = _draw()
    epsilon = 0.1
    smoothed = cross_entropy(smoothed_labels(labels, _CLASSES, epsilon, dtype=torch.float64), logits)
    uniform = torch.full_like(logits, 1 / _CLASSES)
    hard = cross_entropy(_one_hot(labels), logits)
    return compare(smoothed, (1 - epsilon) * hard + epsilon * kl_divergence(uniform, logits), logits)


def _distillation_is_learned_smoothing() -> float:
    logits, teacher, labels = _draw()
    alpha, q = 0.3, teacher.softmax(-1)
    mixed = cross_entropy((1 - alpha) * _one_hot(labels) + alpha * q, logits)
    entropy = -torch.special.xlogy(q, q).sum(-1)
    hard, soft = cross_entropy(_one_hot(labels), logits), kl_divergence(q, logits) + entropy
    return compare((1 - alpha) * hard + alpha * soft, mixed, logits)


def _softened_teacher_tends_to_uniform() -> float:
    """τ times the distance from uniform tends to the centred logits over K: the softened teacher goes as 1/τ."""
    _, teacher, _ = _draw()
    tau = 1e6
    rate = tau * ((teacher / tau).softmax(-1) - 1 / _CLASSES)
    limit = (teacher - teacher.mean(-1, keepdim=True)) / _CLASSES
    return ((rate - limit).norm() / limit.norm()).item()


def _correction_at_one_is_smoothing() -> float:
    logits, _, labels = _draw()
    alpha, share = 0.3, 0.4
    corrected = objective("lsrkd-tc-share", alpha=alpha, temperature=1.0, share=share)
    smoothing = objective("lsr", epsilon=alpha * (1 - share) * _CLASSES / (_CLASSES - 1))
    return compare(_by_row(corrected, logits, labels), _by_row(smoothing, logits, labels), logits)


def _soft_limit_is_variance() -> float:
    logits, _, labels = _draw()
    tau = 1e6
    soft = objective("lsrkd", alpha=1.0, temperature=tau)
    return compare(_by_row(soft, logits, labels), logits.var(-1, correction=0) / 2, logits)


def _high_temperature_is_logit_matching() -> float:
    """τ²·KL between softened teacher and student tends to half the mean squared difference of centred logits."""
    logits, teacher, _ = _draw()
    tau = 1e5
    (gradient,) = torch.autograd.grad(tau**2 * divergence(teacher, logits, tau, tau).mean(), logits)
    difference = (logits - teacher).detach()
    limit = (difference - difference.mean(-1, keepdim=True)) / (_CLASSES * _DRAWS)
    return ((gradient - limit).norm() / limit.norm()).item()


def _soft_only_is_smoothing() -> float:
    """Soft-only distillation from a hand-made teacher at τ = 1 has label smoothing's gradient."""
    logits, _, labels = _draw()
    gap = 4.5
    share = TargetGap(gap).share(_CLASSES, 1.0)
    epsilon = (1 - share) * _CLASSES / (_CLASSES - 1)
    q = probabilities(TargetGap(gap), labels, _CLASSES, dtype=torch.float64)
    smoothed = smoothed_labels(labels, _CLASSES, epsilon, dtype=torch.float64)
    return compare(cross_entropy(q, logits), cross_entropy(smoothed, logits), logits)


def _mean_of_divergences_is_one() -> float:
    """The mean of the divergences from three teachers, and the divergence from their mean."""
    logits, _, _ = _draw()
    generator = torch.Generator().manual_seed(1)
    teachers, tau = 3 * torch.randn(3, _DRAWS, _CLASSES, generator=generator, dtype=torch.float64), 4.0

    def mean(student: Tensor) -> Tensor:
        return torch.stack([divergence(teacher, student, tau, tau) for teacher in teachers]).mean(0)

    return _compare_up_to_rows(mean, lambda student: divergence(mean_scores(teachers, tau), student, tau), logits)


def _scale_is_rate_and_decay() -> float:
    """Five steps of SGD on a scaled loss, and on the plain one with learning rate times, decay over the scale."""
    inputs, _, labels = _draw()
    scale, rate, decay = 0.0595, 0.1, 5e-4
    ends = []
    for factor, lr, weight_decay in ((scale, rate, decay), (1.0, rate * scale, decay / scale)):
        layer = nn.Linear(_CLASSES, _CLASSES, dtype=torch.float64)
        with torch.no_grad():
            layer.weight.copy_(torch.eye(_CLASSES)), layer.bias.zero_()
        optimizer = torch.optim.SGD(layer.parameters(), lr=lr, momentum=0.9, weight_decay=weight_decay)
        for _ in range(5):
            optimizer.zero_grad()
            (factor * nn.functional.cross_entropy(layer(inputs.detach()), labels)).backward()
            optimizer.step()
        ends.append(layer.weight.detach())
    return ((ends[0] - ends[1]).norm() / (ends[1] - torch.eye(_CLASSES)).norm()).item()


def _released_is_smoothing() -> float:
    """Every released configuration of Tf-KD_reg against label smoothing with its own ε and loss scale."""
    logits, _, labels = _draw(classes=100)  # of CIFAR-100
    released = (
        objective("tf-kd-reg-released", alpha=alpha, temperature=tau, multiplier=multiplier)
        for alpha, tau, multiplier in ((0.1, 20.0, 100.0), (0.95, 40.0, 1.0), (0.95, 10.0, 1.0), (0.5, 40.0, 1.0))
    )
    return max(_compare_with_smoothing(loss, logits, labels) for loss in released)


def _printed_form() -> float:
    """How far the soft part of Tf-KD_reg, as printed, is from every label smoothing: p, y and u in any amounts."""
    logits, _, labels = _draw()
    printed = replace(objective("tf-kd-reg"), alpha=1.0)
    (gradient,) = torch.autograd.grad(printed(logits, labels).total, logits)
    p = logits.detach().softmax(-1)
    family = torch.stack([part.flatten() for part in (p, _one_hot(labels), torch.ones_like(p))], -1)
    nearest = family @ torch.linalg.lstsq(family, gradient.flatten()[:, None]).solution
    return ((gradient.flatten() - nearest[:, 0]).norm() / gradient.norm()).item()


def _power_is_target_gap() -> float:
    """Tf-KD_reg with powers is LsrKD-TC with the gap ln(a(K−1)/(1−a)), but for the factor τ²."""
    logits, _, labels = _draw()
    a, tau = 0.99, 20.0
    gap = torch.tensor(a * (_CLASSES - 1) / (1 - a)).double().log().item()
    printed = objective("tf-kd-reg", alpha=1.0, temperature=tau, correct=a)
    corrected = objective("lsrkd-tc", alpha=1.0, temperature=tau, gap=gap)
    return compare(tau**2 * _by_row(printed, logits, labels), _by_row(corrected, logits, labels), logits)


def _constant_draws_are_smoothing() -> float:
    logits, _, labels = _draw()
    return _compare_with_smoothing(objective("beta-smoothing-constant"), logits, labels)


def _map_is_distillation() -> float:
    """Minus the log posterior under a Dirichlet prior, and the losses that two priors give."""
    logits, teacher, labels = _draw()
    beta, tau = 1.5, 4.0
    alpha = beta / (1 + beta)
    softened = (teacher / tau).softmax(-1)
    uniform = torch.full_like(softened, 1 / _CLASSES)
    smoothing = objective("lsr", epsilon=alpha)
    distillation = objective("self-distillation-released", alpha=alpha, temperature=tau)

    def error(prior: Tensor, loss: Objective) -> float:
        def minus_log_posterior(student: Tensor) -> Tensor:
            p = student.softmax(-1)
            likelihood = p.log().gather(-1, labels[:, None])[:, 0]
            return -likelihood - torch.distributions.Dirichlet(beta * prior + 1).log_prob(p)

        def ours(student: Tensor) -> Tensor:
            return (1 + beta) * loss(student[:, None], labels[:, None], teacher[:, None]).total

        return _compare_up_to_rows(minus_log_posterior, ours, logits)

    return max(error(uniform, smoothing), error(softened, distillation))


YUAN, WANG, ZHANG = "Yuan 2020", "Wang 2020, 2021", "Zhang & Sabuncu 2020"
SHEN, HINTON, OWN = "Shen 2021", "Hinton 2015", "this study"
_KD, _MANY = "lsr_is_kd", "many_losses"
IDENTITIES: tuple[Identity, ...] = (
    Identity("I1", YUAN, "LSR is distillation from a uniform teacher at τ = 1", _KD, _smoothing_is_distillation),
    Identity("Y4", YUAN, "distillation at τ = 1 is LSR with learned targets", _KD, _distillation_is_learned_smoothing),
    Identity("Y5", YUAN, "the softened teacher tends to uniform", _KD, _softened_teacher_tends_to_uniform, 1e-4),
    Identity("H1", HINTON, "high temperature is logit matching", _KD, _high_temperature_is_logit_matching, 1e-3),
    Identity("S10", SHEN, "soft-only distillation and LSR share their objective", _KD, _soft_only_is_smoothing),
    Identity("I2", OWN, "teacher correction at τ = 1 is LSR", _KD, _correction_at_one_is_smoothing),
    Identity("I3", OWN, "very soft LsrKD is half the logit variance", _KD, _soft_limit_is_variance, 1e-4),
    Identity("Y11", YUAN, "the soft part of Tf-KD_reg as printed is no LSR", _MANY, _printed_form, 0.01, differ=True),
    Identity("I4", OWN, "Tf-KD_reg as released is LSR with its own ε and loss scale", _MANY, _released_is_smoothing),
    Identity("I5", OWN, "Tf-KD_reg with powers is LsrKD-TC by target gap, without τ²", _MANY, _power_is_target_gap),
    Identity("I6", OWN, "a loss scale is a learning rate and a decay", _MANY, _scale_is_rate_and_decay),
    Identity("I7", OWN, "a mean of divergences is one divergence from the mean", _MANY, _mean_of_divergences_is_one),
    Identity("I8", OWN, "Beta smoothing with constant draws is LSR", _MANY, _constant_draws_are_smoothing),
    Identity("Z8", ZHANG, "maximum a posteriori gives LSR and distillation (recalled)", _MANY, _map_is_distillation),
)
