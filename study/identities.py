"""Identities: exact statements, checked in float64 in value and gradient.

Each compares two losses of random logits, labels and teachers, or measures how far apart they are.
"""

import math
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
    derived: bool = True  # for any number of classes in the chapter's text, or shown by these numbers alone

    flags = ()

    def holds(self, error: float) -> bool:
        """Whether this error bears the statement out."""
        return error > self.tolerance if self.differ else error <= self.tolerance

    def effect(self, error: float) -> str:
        """The error as it is printed."""
        return f"relative distance {error:.2g}" if self.differ else f"largest relative error {error:.0e}"


_CLASSES, _DRAWS = 10, 64


def _draw(classes: int = _CLASSES) -> tuple[Tensor, Tensor, Tensor]:
    """Student logits and teacher logits `[64, K]`, and labels."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(_DRAWS, classes, generator=generator, dtype=torch.float64) * 3 for _ in range(2))
    labels = torch.randint(classes, (_DRAWS,), generator=generator)
    return student.requires_grad_(), teacher, labels


_LOGITS, _TEACHER, _LABELS = _draw()
_ONE_HOT = nn.functional.one_hot(_LABELS, _CLASSES).double()
_UNIFORM = torch.full_like(_TEACHER, 1 / _CLASSES)


def _by_row(loss: Objective, logits: Tensor = _LOGITS, labels: Tensor = _LABELS, *teacher: Tensor) -> Tensor:
    """An objective's value on every row `[B]`: each row is a stack of its own, with a batch of one."""
    return loss(logits[:, None], labels[:, None], *(scores[:, None] for scores in teacher)).total


def compare(first: Tensor, second: Tensor, logits: Tensor) -> float:
    """The largest relative error between two losses `[B]` of the same logits, up to a constant, and their gradients."""
    offset = (first - second).detach()
    value = ((offset - offset.mean()).norm() / second.detach().norm()).item()
    gradients = [torch.autograd.grad(loss.sum(), logits, retain_graph=True)[0] for loss in (first, second)]
    return max(value, ((gradients[0] - gradients[1]).norm() / gradients[1].norm()).item())


def _compare_up_to_rows(first: Callable[[Tensor], Tensor], second: Callable[[Tensor], Tensor]) -> float:
    """As `compare`, where every row may have a constant of its own: the difference at logits that are all zero."""
    constants = first(torch.zeros_like(_LOGITS)) - second(torch.zeros_like(_LOGITS))
    return compare(first(_LOGITS) - constants, second(_LOGITS), _LOGITS)


def _compare_with_smoothing(loss: Objective, logits: Tensor = _LOGITS, labels: Tensor = _LABELS) -> float:
    """`compare` of a method and of the label smoothing, with its ε and loss scale, that it is said to be."""
    epsilon, scale = as_label_smoothing(loss, logits.shape[-1])
    smoothed = scale * _by_row(objective("lsr", epsilon=epsilon), logits, labels)
    return compare(_by_row(loss, logits, labels), smoothed, logits)


def _distance(tensor: Tensor, limit: Tensor) -> float:
    """How far a tensor is from its limit, over the limit's norm."""
    return ((tensor - limit).norm() / limit.norm()).item()


def _centred(logits: Tensor) -> Tensor:
    return logits - logits.mean(-1, keepdim=True)


def _smoothing_is_distillation() -> float:
    epsilon = 0.1
    smoothed = cross_entropy(smoothed_labels(_LABELS, _CLASSES, epsilon, dtype=torch.float64), _LOGITS)
    hard, soft = cross_entropy(_ONE_HOT, _LOGITS), kl_divergence(_UNIFORM, _LOGITS)
    return compare(smoothed, (1 - epsilon) * hard + epsilon * soft, _LOGITS)


def _distillation_is_learned_smoothing() -> float:
    alpha, q = 0.3, _TEACHER.softmax(-1)
    mixed = cross_entropy((1 - alpha) * _ONE_HOT + alpha * q, _LOGITS)
    entropy = -torch.special.xlogy(q, q).sum(-1)
    hard, soft = cross_entropy(_ONE_HOT, _LOGITS), kl_divergence(q, _LOGITS) + entropy
    return compare((1 - alpha) * hard + alpha * soft, mixed, _LOGITS)


def _softened_teacher_tends_to_uniform() -> float:
    """τ times the distance from uniform tends to the centred logits over K: the softened teacher goes as 1/τ."""
    tau = 1e6
    return _distance(tau * ((_TEACHER / tau).softmax(-1) - _UNIFORM), _centred(_TEACHER) / _CLASSES)


def _correction_at_one_is_smoothing() -> float:
    alpha, share = 0.3, 0.4
    corrected = objective("lsrkd-tc-share", alpha=alpha, temperature=1.0, share=share)
    smoothing = objective("lsr", epsilon=alpha * (1 - share) * _CLASSES / (_CLASSES - 1))
    return compare(_by_row(corrected), _by_row(smoothing), _LOGITS)


def _soft_limit_is_variance() -> float:
    soft = objective("lsrkd", alpha=1.0, temperature=1e6)
    return compare(_by_row(soft), _LOGITS.var(-1, correction=0) / 2, _LOGITS)


def _high_temperature_is_logit_matching() -> float:
    """τ²·KL between softened teacher and student tends to half the mean squared difference of centred logits."""
    tau = 1e5
    (gradient,) = torch.autograd.grad(tau**2 * divergence(_TEACHER, _LOGITS, tau, tau).mean(), _LOGITS)
    return _distance(gradient, _centred((_LOGITS - _TEACHER).detach()) / (_CLASSES * _DRAWS))


def _soft_only_is_smoothing() -> float:
    """Soft-only distillation from a hand-made teacher at τ = 1 has label smoothing's gradient."""
    teacher = TargetGap(4.5)
    epsilon = (1 - teacher.share(_CLASSES, 1.0)) * _CLASSES / (_CLASSES - 1)
    q = probabilities(teacher, _LABELS, _CLASSES, dtype=torch.float64)
    smoothed = smoothed_labels(_LABELS, _CLASSES, epsilon, dtype=torch.float64)
    return compare(cross_entropy(q, _LOGITS), cross_entropy(smoothed, _LOGITS), _LOGITS)


def _mean_of_divergences_is_one() -> float:
    """The mean of the divergences from three teachers, and the divergence from their mean."""
    generator = torch.Generator().manual_seed(1)
    teachers, tau = 3 * torch.randn(3, _DRAWS, _CLASSES, generator=generator, dtype=torch.float64), 4.0
    return _compare_up_to_rows(
        lambda student: torch.stack([divergence(teacher, student, tau, tau) for teacher in teachers]).mean(0),
        lambda student: divergence(mean_scores(teachers, tau), student, tau),
    )


def _scale_is_rate_and_decay() -> float:
    """Five steps of SGD on a scaled loss, and on the plain one with learning rate times, decay over the scale."""
    scale, rate, decay = 0.0595, 0.1, 5e-4
    moves = []
    for factor, learning_rate, weight_decay in ((scale, rate, decay), (1.0, rate * scale, decay / scale)):
        weight = torch.eye(_CLASSES, dtype=torch.float64, requires_grad=True)
        velocity = torch.zeros_like(weight)
        for _ in range(5):
            loss = factor * nn.functional.cross_entropy(_LOGITS.detach() @ weight, _LABELS)
            (gradient,) = torch.autograd.grad(loss, weight)
            velocity = 0.9 * velocity + gradient + weight_decay * weight.detach()
            weight = (weight.detach() - learning_rate * velocity).requires_grad_()
        moves.append(weight.detach() - torch.eye(_CLASSES))
    return _distance(*moves)


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
    printed = replace(objective("tf-kd-reg"), alpha=1.0)
    (gradient,) = torch.autograd.grad(printed(_LOGITS, _LABELS).total, _LOGITS)
    family = torch.stack([part.flatten() for part in (_LOGITS.detach().softmax(-1), _ONE_HOT, _UNIFORM)], -1)
    nearest = family @ torch.linalg.lstsq(family, gradient.flatten()[:, None]).solution
    return _distance(nearest[:, 0], gradient.flatten())


def _power_is_target_gap() -> float:
    """Tf-KD_reg with powers is LsrKD-TC with the gap ln(a(K−1)/(1−a)), but for the factor τ²."""
    a, tau = 0.99, 20.0
    printed = objective("tf-kd-reg", alpha=1.0, temperature=tau, correct=a)
    corrected = objective("lsrkd-tc", alpha=1.0, temperature=tau, gap=math.log(a * (_CLASSES - 1) / (1 - a)))
    return compare(tau**2 * _by_row(printed), _by_row(corrected), _LOGITS)


def _constant_draws_are_smoothing() -> float:
    return _compare_with_smoothing(objective("beta-smoothing-constant"))


def _map_is_distillation() -> float:
    """Minus the log posterior under a Dirichlet prior, and the losses that two priors give."""
    beta, tau = 1.5, 4.0
    alpha = beta / (1 + beta)

    def error(prior: Tensor, loss: Objective) -> float:
        def minus_log_posterior(student: Tensor) -> Tensor:
            p = student.softmax(-1)
            likelihood = p.log().gather(-1, _LABELS[:, None])[:, 0]
            return -likelihood - torch.distributions.Dirichlet(beta * prior + 1).log_prob(p)

        def scaled(student: Tensor) -> Tensor:
            return (1 + beta) * _by_row(loss, student, _LABELS, _TEACHER)

        return _compare_up_to_rows(minus_log_posterior, scaled)

    distillation = objective("self-distillation-released", alpha=alpha, temperature=tau)
    softened = (_TEACHER / tau).softmax(-1)
    return max(error(_UNIFORM, objective("lsr", epsilon=alpha)), error(softened, distillation))


YUAN, ZHANG = "Yuan 2020", "Zhang & Sabuncu 2020"
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
    Identity(
        "Y11",
        YUAN,
        "the soft part of Tf-KD_reg as printed is no LSR",
        _MANY,
        _printed_form,
        0.01,
        differ=True,
        derived=False,
    ),
    Identity("I4", OWN, "Tf-KD_reg as released is LSR with its own ε and loss scale", _MANY, _released_is_smoothing),
    Identity("I5", OWN, "Tf-KD_reg with powers is LsrKD-TC by target gap, without τ²", _MANY, _power_is_target_gap),
    Identity("I6", OWN, "a loss scale is a learning rate and a decay", _MANY, _scale_is_rate_and_decay),
    Identity("I7", OWN, "a mean of divergences is one divergence from the mean", _MANY, _mean_of_divergences_is_one),
    Identity("I8", OWN, "Beta smoothing with constant draws is LSR", _MANY, _constant_draws_are_smoothing),
    Identity(
        "Z8",
        ZHANG,
        "MAP gives LSR and distillation (recalled)",
        _MANY,
        _map_is_distillation,
        derived=False,
    ),
)
