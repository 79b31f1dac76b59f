"""Every method's loss as its formula says, for autograd in float64.

What the library's closed forms are held against: hard weight, soft weight and divergence of each method, written from
the papers' equations with nothing but softmax and sums.
"""

import math

import torch
from torch.nn.functional import one_hot


def log_p(logits, tau=1.0):
    return (logits / tau).log_softmax(-1)


def q(logits, tau=1.0):
    return log_p(logits, tau).exp()


def h(target, logits, tau=1.0):
    return -(target * log_p(logits, tau)).sum(-1)


def kl(target, logits, tau=1.0):
    return torch.special.xlogy(target, target).sum(-1) + h(target, logits, tau)


def uniform(z):
    return torch.full_like(z, 1 / z.shape[-1]).detach()


def made(y, share):
    """`share` on the right class of one-hot labels, the rest even."""
    return share * y + (1 - share) / (y.shape[-1] - 1) * (1 - y)


def zipf(votes, z, y):
    ranks = 1 + (votes[..., None, :] > votes[..., :, None]).sum(-1).double()
    wrong = (1 - y) / ranks
    rest = z.masked_fill(y.bool(), -math.inf).logsumexp(-1, keepdim=True)
    target = wrong / wrong.sum(-1, keepdim=True)
    return (torch.special.xlogy(target, target) - target * (z - rest)).sum(-1)


def corrected(v, y, tau, share):
    right = (v.argmax(-1) == y.argmax(-1))[..., None]
    return torch.where(right, q(v, tau), made(y, share))


def exchanged(v, y):
    """The predicted class and the label exchange their logits."""
    top = one_hot(v.argmax(-1), v.shape[-1]).double()
    return v + ((v * top).sum(-1, keepdim=True) - (v * y).sum(-1, keepdim=True)) * (y - top)


# name: (h, s, divergence) from constants c, logits z, one-hot labels y, teacher logits v.
FORMULAS = {
    "cross-entropy": lambda c, z, y, v: (1, 0, kl(y, z)),
    "lsr": lambda c, z, y, v: (1 - c.epsilon, c.epsilon, kl(uniform(z), z)),
    "lsr-wrong-classes": lambda c, z, y, v: (1 - c.epsilon, c.epsilon, kl((1 - y) / (z.shape[-1] - 1), z)),
    "confidence-penalty": lambda c, z, y, v: (1, c.beta, math.log(z.shape[-1]) - h(q(z), z)),
    "kd": lambda c, z, y, v: (1 - c.alpha, c.alpha * c.temperature**2, kl(q(v, c.temperature), z, c.temperature)),
    "kd-unscaled": lambda c, z, y, v: (1 - c.alpha, c.alpha, kl(q(v, c.temperature), z, c.temperature)),
    "kd-released": lambda c, z, y, v: (
        1 - c.alpha,
        c.alpha * c.temperature**2 * c.multiplier,
        kl(q(v, c.temperature), z, c.temperature) / z.shape[-1],
    ),
    "kd-weighted": lambda c, z, y, v: (
        c.hard_weight,
        c.soft_weight,
        kl(q(v, c.teacher_temperature), z, c.temperature),
    ),
    "soft-only": lambda c, z, y, v: (0, c.temperature**2, kl(q(v, c.temperature), z, c.temperature)),
    "self-distillation-released": lambda c, z, y, v: (1 - c.alpha, c.alpha, kl(q(v, c.temperature), z)),
    "tf-kd-reg": lambda c, z, y, v: (
        1 - c.alpha,
        c.alpha,
        kl(q(made(y, c.correct).log(), c.temperature), z, c.temperature),
    ),
    "tf-kd-reg-logits": lambda c, z, y, v: (
        1 - c.alpha,
        c.alpha,
        kl(q(made(y, c.correct), c.temperature), z, c.temperature),
    ),
    "tf-kd-reg-released": lambda c, z, y, v: (
        1 - c.alpha,
        c.alpha * c.multiplier,
        kl(q(made(y, c.correct), c.temperature), z) / z.shape[-1],
    ),
    "lsrkd": lambda c, z, y, v: (1 - c.alpha, c.alpha * c.temperature**2, kl(uniform(z), z, c.temperature)),
    "lsrkd-tc": lambda c, z, y, v: (
        1 - c.alpha,
        c.alpha * c.temperature**2,
        kl(q(c.gap * y, c.temperature), z, c.temperature),
    ),
    "lsrkd-tc-share": lambda c, z, y, v: (
        1 - c.alpha,
        c.alpha * c.temperature**2,
        kl(made(y, c.share), z, c.temperature),
    ),
    "beta-smoothing-constant": lambda c, z, y, v: (1 - c.alpha, c.alpha, kl(made(y, c.a / (c.a + 1)), z)),
    "prior-smoothing": lambda c, z, y, v: (1 - c.alpha, c.alpha, kl(uniform(z), z)),
    "zipf": lambda c, z, y, v: (1, c.weight, zipf(v, z, y)),
    "ladder-confidence": lambda c, z, y, v: (
        1 - c.alpha,
        c.alpha * c.temperature**2,
        kl(made(y, (q(v, c.temperature) * y).sum(-1, keepdim=True)), z, c.temperature),
    ),
    "mrkd-tc": lambda c, z, y, v: (
        1 - c.alpha,
        c.alpha * c.temperature**2,
        kl(corrected(v, y, c.temperature, c.share), z, c.temperature),
    ),
    "mrkd-fcn-ka": lambda c, z, y, v: (  # with one copy, before the layer has learned
        1 - c.alpha,
        c.alpha * c.temperature**2,
        kl(q(exchanged(v, y), c.temperature), z, c.temperature),
    ),
    "ps-kd": lambda c, z, y, v: (1, 0, kl(y, z)),  # the first epoch: the table holds the labels
}
FORMULAS |= {
    "self-distillation": FORMULAS["kd"],
    "ladder-teacher": FORMULAS["kd"],
    "ladder-uniform": FORMULAS["lsrkd-tc-share"],
    "ladder-class-means": FORMULAS["lsrkd"],  # without a prior
    "mrkd": FORMULAS["kd"],  # with one copy
    "mrkd-fcn": FORMULAS["kd"],  # with one copy, before the layer has learned
}


def formula(objective, logits, labels, teacher):
    """The mean loss over the batch."""
    y = one_hot(labels, logits.shape[-1]).double()
    hard_weight, soft_weight, divergence = FORMULAS[objective.name](objective, logits, y, teacher)
    return (hard_weight * h(y, logits) + soft_weight * divergence).mean(-1)
