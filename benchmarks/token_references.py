"""Short plain PyTorch formulations of the losses on tokens and on several teachers.

The log-probabilities of both sides are computed for the whole vocabulary.
"""

from __future__ import annotations

import math
from types import SimpleNamespace as Inputs

import torch
import torch.nn.functional as F
from loss_references import kl, kl_values, sides
from torch import Tensor

TEACHERS = 3


def logs(x: Inputs) -> tuple[Tensor, Tensor]:
    """Return the log-probabilities of student and teacher."""
    return F.log_softmax(x.student, -1), F.log_softmax(x.teacher, -1)


def divergence(first: Tensor, second: Tensor) -> Tensor:
    """Return the mean KL(first || second) of log-probabilities."""
    return (first.exp() * (first - second)).sum(-1).mean()


def mixed(first: Tensor, second: Tensor, share: float) -> Tensor:
    """Return the log of the mixture ``share * first + (1 - share) * second``."""
    return torch.logaddexp(first + math.log(share), second + math.log(1 - share))


def reverse_kl(x: Inputs) -> Tensor:
    return divergence(*logs(x))


def symmetric_kl(x: Inputs) -> Tensor:
    student_log, teacher_log = logs(x)
    return ((student_log.exp() - teacher_log.exp()) * (student_log - teacher_log)).sum(
        -1
    ).mean() / 2


def jsd(x: Inputs) -> Tensor:
    student_log, teacher_log = logs(x)
    middle = mixed(student_log, teacher_log, 0.5)
    return (divergence(teacher_log, middle) + divergence(student_log, middle)) / 2


def skewed_forward_kl(x: Inputs) -> Tensor:
    student_log, teacher_log = logs(x)
    return divergence(teacher_log, mixed(teacher_log, student_log, 0.1))


def skewed_reverse_kl(x: Inputs) -> Tensor:
    student_log, teacher_log = logs(x)
    return divergence(student_log, mixed(student_log, teacher_log, 0.1))


def tvd(x: Inputs) -> Tensor:
    student_log, teacher_log = logs(x)
    return (student_log.exp() - teacher_log.exp()).abs().sum(-1).mean() / 2


def akl(x: Inputs) -> Tensor:
    student_log, teacher_log = logs(x)
    order = teacher_log.argsort(-1, descending=True)
    gap = (student_log.detach().exp() - teacher_log.exp()).abs()
    head = teacher_log.exp().gather(-1, order).cumsum(-1) <= 0.5
    head[..., 0] = True
    share = (gap.gather(-1, order) * head).sum(-1) / gap.sum(-1)
    forward, reverse = (
        (teacher_log.exp() * (teacher_log - student_log)).sum(-1),
        (student_log.exp() * (student_log - teacher_log)).sum(-1),
    )
    return (share * forward + (1 - share) * reverse).mean()


def alpha_beta(x: Inputs, alpha: float = 0.2, beta: float = 0.7) -> Tensor:
    student_log, teacher_log = logs(x)
    both = alpha + beta
    terms = (alpha * teacher_log + beta * student_log).exp() - (
        alpha * (both * teacher_log).exp() + beta * (both * student_log).exp()
    ) / both
    return -terms.sum(-1).mean() / (alpha * beta)


def todi(x: Inputs, beta: float = 1.0) -> Tensor:
    student, teacher = logs(x)
    ratio = teacher - student
    weight = (beta * ratio.detach()).sigmoid()
    return ((weight * teacher.exp() - (1 - weight) * student.exp()) * ratio).sum(-1).mean()


def bdkd(x: Inputs, factor: float = 3.0) -> Tensor:
    student, teacher = logs(x)
    student_entropy, teacher_entropy = (-(log.exp() * log).sum(-1) for log in (student, teacher))
    forward = (teacher.exp() * (teacher - student)).sum(-1)
    reverse = (student.exp() * (student - teacher)).sum(-1)
    forward = forward * torch.where(teacher_entropy > student_entropy, factor, 1.0)
    return (forward + reverse * torch.where(student_entropy > teacher_entropy, factor, 1.0)).mean()


def alphanet(x: Inputs, clip: float = 5.0) -> Tensor:
    student, teacher = logs(x)
    q = student.detach().exp()
    powers = (student - teacher).detach().exp().clamp(max=clip)
    low = (q * (powers - 1) / 2).sum(-1)
    high = (teacher.exp() * (teacher - student)).sum(-1)
    surrogate = -(q * (0.5 - powers) * student).sum(-1)
    low = low + surrogate - surrogate.detach()
    return torch.where(low > high, low, high).mean()


def sparse_soft_labels(x: Inputs, k: int = 5) -> Tensor:
    probs = x.teacher.softmax(-1)
    k = min(k, probs.shape[-1])
    values, index = probs.topk(k, -1)
    rest = (1 - values.sum(-1, keepdim=True)) / max(probs.shape[-1] - k, 1)
    return kl(x.student, rest.expand_as(probs).scatter(-1, index, values).log())


def bild(x: Inputs, top_k: int = 8, temperature: float = 3.0) -> Tensor:
    total = x.student.new_zeros(())
    top_k = min(top_k, x.student.shape[-1])
    first, second = torch.triu_indices(top_k, top_k, 1)
    for leading in (x.teacher, x.student):
        index = leading.topk(top_k, -1).indices
        differences = []
        for side in (x.student, x.teacher):
            top = side.gather(-1, index) / temperature
            differences.append((top[..., first] - top[..., second]).log_softmax(-1))
        total = total + divergence(differences[1], differences[0])
    return total


def sinkd(x: Inputs, temperature: float = 2.0, epsilon: float = 0.1) -> Tensor:
    student, teacher = ((side / temperature).softmax(-1) for side in (x.student, x.teacher))
    cost = torch.cdist(student, teacher, p=1.0)
    plan = (-cost / epsilon).exp()
    for _ in range(20):
        plan = plan / plan.sum(1, keepdim=True)
        plan = plan / plan.sum(0, keepdim=True)
    return (plan * cost).sum() / len(cost)


def spherical_kd(x: Inputs, multiplier: float = 2.0, temperature: float = 4.0) -> Tensor:
    shape = x.student.shape[-1:]
    student, teacher = (
        (F.layer_norm(side, shape, eps=1e-7) * multiplier / temperature).log_softmax(-1)
        for side in (x.student, x.teacher)
    )
    return temperature**2 * divergence(teacher, student)


def taid(x: Inputs) -> Tensor:
    return kl(x.student, (x.student.detach() + x.teacher) / 2)


def top(x: Inputs, k: int) -> Tensor:
    student_log, teacher_log = logs(x)
    values, index = teacher_log.topk(k, -1)
    two = [
        torch.cat([side, torch.log1p(-side.exp().sum(-1, keepdim=True))], -1)
        for side in (values, student_log.gather(-1, index))
    ]
    return divergence(*two)


def ranking(x: Inputs, k: int) -> Tensor:
    index = x.teacher.topk(k, -1).indices
    scores = x.student.gather(-1, index)
    first, second = torch.triu_indices(k, k, 1)
    return F.softplus(scores[..., second] - scores[..., first]).mean()


def uld(x: Inputs) -> Tensor:
    student_probs, teacher_probs = (
        F.softmax(side, -1).sort(-1, descending=True).values for side in sides(x)
    )
    return (student_probs - teacher_probs).abs().sum(-1).mean()


def multilevel_ot(x: Inputs, top_k: int = 50, epsilon: float = 0.1) -> Tensor:
    ranked = []
    for side in (x.student, x.teacher):
        probs = (side / (side.std(-1, keepdim=True) + 1e-4)).softmax(-1)
        order = probs.detach().sum(1).argsort(-1, descending=True)[:, :top_k]
        ranked.append(torch.take_along_dim(probs, order[:, None], -1))
    student, teacher = ranked
    cost = (student[:, :, None] - teacher[:, None]).abs().sum(-1)
    plan = (-cost / epsilon).exp()
    for _ in range(10):
        plan = plan / plan.sum(2, keepdim=True)
        plan = plan / plan.sum(1, keepdim=True)
    values = (student - teacher).abs().sum(-1) - 0.1 * (teacher * student.log()).sum(-1)
    return (values + 0.1 * (plan * cost).sum(-1)).mean()


def opd(x: Inputs) -> Tensor:
    student_log, teacher_log = (side.gather(-1, x.label[:, None]) for side in logs(x))
    return (student_log - teacher_log).square().mean() / 2


def sampled(x: Inputs) -> Tensor:
    return (x.drawn.log_p - F.log_softmax(x.student, -1).gather(-1, x.drawn.ids)).mean()


def dskd(x: Inputs) -> Tensor:
    return (
        F.cross_entropy(x.other, x.label)
        + kl(x.student, x.other.detach(), 2)
        + kl(x.other, x.teacher, 2)
    )


def dskd_cma(x: Inputs) -> Tensor:
    labelled = F.cross_entropy(x.other, x.label, reduction="none")
    right = x.other.argmax(-1) == x.label
    return (
        labelled
        + right * kl_values(x.student, x.other.detach(), 2)
        + kl_values(x.other, x.teacher, 2)
    ).mean()


def gold(x: Inputs) -> Tensor:
    student_log, teacher_log = logs(x)
    half = student_log.shape[-1] // 2
    one, other = (side[:, :half] for side in (student_log, teacher_log))
    middle = mixed(one, other, 0.5)
    same = (other.exp() * (other - middle) + one.exp() * (one - middle)).sum(-1) / 2
    rest = [
        side[:, half:].exp().sort(-1, descending=True).values for side in (student_log, teacher_log)
    ]
    return (0.5 * same + 0.5 * (rest[0] - rest[1]).abs().sum(-1)).mean()


def meal_discriminator(x: Inputs) -> Tensor:
    scores = torch.cat([side.view(-1, 2) for side in sides(x)])
    real = torch.zeros_like(scores)
    real[: len(real) // 2, 0] = real[len(real) // 2 :, 1] = 1
    return F.binary_cross_entropy_with_logits(scores, real)


def several(x: Inputs, weights: Tensor) -> Tensor:
    """Return the weighted KL divergences of all teachers, with weights (K, N)."""
    return (
        16
        * (weights * torch.stack([kl_values(x.student, one, 4) for one in x.teachers]))
        .sum(0)
        .mean()
    )


def ebkd(x: Inputs) -> Tensor:
    entropy = -(F.softmax(x.teachers, -1) * F.log_softmax(x.teachers, -1)).sum(-1)
    return several(x, (1 - entropy / entropy.sum(0)) / (TEACHERS - 1))


def camkd(x: Inputs) -> Tensor:
    error = torch.stack([F.cross_entropy(one, x.label, reduction="none") for one in x.teachers])
    return several(x, (1 - F.softmax(error, 0)) / (TEACHERS - 1))


def camkd_feature(x: Inputs) -> Tensor:
    error = torch.stack([F.cross_entropy(one, x.label, reduction="none") for one in x.teachers])
    weights = (1 - F.softmax(error, 0)) / (TEACHERS - 1)
    return (
        (
            weights
            * torch.stack(
                [F.mse_loss(x.student, one, reduction="none").mean(-1) for one in x.teachers]
            )
        )
        .sum(0)
        .mean()
    )


def amtml_kd(x: Inputs) -> Tensor:
    target = (F.softmax(x.teachers / 5, -1) / TEACHERS).sum(0).log()
    return 25 * F.kl_div(
        F.log_softmax(x.student / 5, -1), target, reduction="batchmean", log_target=True
    )


def amtml_kd_angle(x: Inputs) -> Tensor:
    def cosines(side: Tensor) -> Tensor:
        edges = F.normalize(side[None] - side[:, None], dim=2)
        return edges @ edges.mT

    return F.smooth_l1_loss(cosines(x.student), cosines(x.teacher))


def bake(x: Inputs) -> Tensor:
    soft, unit = F.log_softmax(x.student / 4, -1), F.normalize(x.embedding, dim=1)
    similarity = unit @ unit.T
    shares = F.softmax(similarity.fill_diagonal_(-torch.inf), -1)
    target = torch.linalg.solve(
        torch.eye(len(unit), dtype=unit.dtype, device=unit.device) - 0.5 * shares,
        0.5 * soft.detach().exp(),
    )
    return 16 * divergence(target.log(), soft)


def ddgsd(x: Inputs) -> Tensor:
    return 9 * (kl(x.student, x.other.detach(), 3) + kl(x.other, x.student.detach(), 3))


def dino(x: Inputs) -> Tensor:
    student_log, teacher_probs = (
        F.log_softmax(x.student / 0.1, -1),
        F.softmax(x.teacher[:, :2] / 0.04, -1),
    )
    views = range(student_log.shape[1])
    terms = [
        -(teacher_probs[:, one] * student_log[:, other]).sum(-1)
        for one in range(2)
        for other in views
        if other != one
    ]
    return torch.stack(terms).mean()


def distribution_focal(x: Inputs) -> Tensor:
    edges = x.student.unflatten(-1, (4, -1)).flatten(0, 1)
    box = x.box.flatten()
    low = box.floor().clamp_max(edges.shape[-1] - 2)
    share = box - low
    below, above = (F.cross_entropy(edges, low.long() + step, reduction="none") for step in (0, 1))
    return ((1 - share) * below + share * above).mean()


def am_radio_spatial(x: Inputs) -> Tensor:
    return 0.9 * (
        1 - F.cosine_similarity(x.student, x.teacher, dim=-1).mean()
    ) + 0.1 * F.smooth_l1_loss(x.student, x.teacher)


def am_radio_summary(x: Inputs) -> Tensor:
    return 1 - F.cosine_similarity(x.student, x.teacher, dim=-1).mean()


def mean_squared_error(x: Inputs) -> Tensor:
    has_label = x.real_label != -100
    squares = F.mse_loss(x.student, x.real_label, reduction="none") * has_label
    return (squares.sum(-1) / has_label.sum(-1)).mean()
