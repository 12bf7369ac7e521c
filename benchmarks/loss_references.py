"""Short plain PyTorch formulations of the losses, and the losses of torchdistill.

On ordinary inputs a plain formulation has the value of the loss function.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import ModuleType
from types import SimpleNamespace as Inputs
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def through(
    outputs: Callable[[Inputs], tuple[Any, Any]], make: Callable[[ModuleType], Any]
) -> Callable[[ModuleType, Inputs], Callable[[], Tensor]]:
    """Return a case for a torchdistill loss that reads module ``m`` of both networks."""

    def build(losses: ModuleType, inputs: Inputs) -> Callable[[], Tensor]:
        loss = make(losses)

        def run() -> Tensor:
            student, teacher = outputs(inputs)
            value: Tensor = loss({"m": {"output": student}}, {"m": {"output": teacher}})
            return value

        return run

    return build


def sides(inputs: Inputs) -> tuple[Tensor, Tensor]:
    return inputs.student, inputs.teacher


def pairs(*sides: str) -> dict[str, Any]:
    """Return torchdistill's configuration of one pair of feature maps."""
    return {"pair": {side: {"path": "m", "io": "output"} for side in sides}}


WHERE = {
    f"{side}_module_{key}": value
    for side in ("student", "teacher")
    for key, value in (("path", "m"), ("io", "output"))
}
OUTPUTS = {"student_output_path": "m", "teacher_output_path": "m"}


def kl(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Return the KL divergence without T², averaged over the first dimension."""
    student_log, teacher_log = (
        F.log_softmax(student / temperature, -1),
        F.log_softmax(teacher / temperature, -1),
    )
    return F.kl_div(student_log, teacher_log, reduction="batchmean", log_target=True)


def kl_values(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    student_log, teacher_log = (
        F.log_softmax(student / temperature, -1),
        F.log_softmax(teacher / temperature, -1),
    )
    return F.kl_div(student_log, teacher_log, reduction="none", log_target=True).sum(-1)


def dkd(x: Inputs) -> Tensor:
    """Exclude the target class from the softmax by a much lower logit."""
    label = x.label[:, None]

    def own(side: Tensor) -> Tensor:
        share = F.softmax(side / 4, -1).gather(1, label)
        return torch.cat([share, 1 - share], 1)

    def lowered(side: Tensor) -> Tensor:
        return (side / 4).scatter_add(1, label, torch.full_like(label, -1000.0, dtype=side.dtype))

    rest = F.kl_div(
        F.log_softmax(lowered(x.student), 1),
        F.softmax(lowered(x.teacher), 1),
        reduction="batchmean",
    )
    return 16 * (F.kl_div(own(x.student).log(), own(x.teacher), reduction="batchmean") + 8 * rest)


def gkl(x: Inputs) -> Tensor:
    share, difference = (0.05 * F.log_softmax(x.teacher, -1)).softmax(-1), x.teacher - x.student
    spread = (share * difference * difference).sum(-1) - (share * difference).sum(-1) ** 2
    return kl(x.student, x.teacher, 4) + 8 * spread.mean()


def mft(x: Inputs) -> Tensor:
    p, label = F.softmax(x.teacher, -1), x.label[:, None]
    own, (top, best) = p.gather(1, label), p.max(1, keepdim=True)
    share = torch.where(
        best == label,
        ((own + 0.2).clamp(max=1) - own) / (1 - own),
        (top - own + 0.2) / (1 + top - own),
    ).clamp(max=1)
    target = (p * (1 - share)).scatter_add(1, label, share)
    return F.kl_div(F.log_softmax(x.student, -1), target, reduction="batchmean")


def mlkd(x: Inputs) -> Tensor:
    total = torch.zeros((), device=x.student.device)
    for t in (2.0, 3.0, 4.0, 5.0, 6.0):
        p, q = F.softmax(x.student / t, 1), F.softmax(x.teacher / t, 1)
        total = total + t * t * kl(x.student, x.teacher, t)
        total = (
            total
            + len(p) * F.mse_loss(p @ p.T, q @ q.T)
            + p.shape[1] * F.mse_loss(p.T @ p, q.T @ q)
        )
    return total


def mlkd_pairs(x: Inputs, classes: bool) -> Tensor:
    both = [F.softmax(side / 4, -1) for side in sides(x)]
    student_probs, teacher_probs = (side.T if classes else side for side in both)
    return F.mse_loss(
        student_probs @ student_probs.T, teacher_probs @ teacher_probs.T, reduction="sum"
    ) / len(student_probs)


def nkd(x: Inputs) -> Tensor:
    label = x.label[:, None]
    own = F.softmax(x.teacher, 1).gather(1, label)
    rest = [side.scatter(1, label, -1000.0) for side in (x.student, x.teacher)]
    return -(own * F.log_softmax(x.student, 1).gather(1, label)).mean() + 1.5 * F.cross_entropy(
        rest[0], F.softmax(rest[1], 1)
    )


def normkd(x: Inputs) -> Tensor:
    deviations = [side.std(-1, keepdim=True) for side in (x.student, x.teacher)]
    student_log, teacher_log = (
        F.log_softmax(side / deviation, -1)
        for side, deviation in zip(sides(x), deviations, strict=True)
    )
    return (
        F.kl_div(student_log, teacher_log, reduction="none", log_target=True).sum(-1)
        * deviations[1].squeeze(-1) ** 2
    ).mean()


def probability_shift(x: Inputs) -> Tensor:
    label, (highest, top) = x.label[:, None], x.teacher.max(1, keepdim=True)
    return 16 * kl(
        x.student,
        x.teacher.scatter(1, top, x.teacher.gather(1, label)).scatter(1, label, highest),
        4,
    )


def ps_kd(x: Inputs) -> Tensor:
    return F.cross_entropy(
        x.student, 0.2 * F.one_hot(x.label, x.student.shape[1]) + 0.8 * F.softmax(x.teacher, 1)
    )


def rld(x: Inputs) -> Tensor:
    student, teacher, label = x.student / 4, x.teacher / 4, x.label[:, None]
    student_probs, teacher_probs = F.softmax(student, 1), F.softmax(teacher, 1)
    own, best = student_probs.gather(1, label), teacher_probs.amax(1, keepdim=True)
    two = F.kl_div(
        torch.cat([own, 1 - own], 1).log(), torch.cat([best, 1 - best], 1), reduction="batchmean"
    )
    left_out = teacher >= teacher.gather(1, label)
    rest = F.kl_div(
        F.log_softmax(student - 1000 * left_out, 1),
        F.softmax(teacher - 1000 * left_out, 1),
        reduction="none",
    ).sum(1)
    return 16 * (two + 8 * (rest * ~left_out.all(1)).mean())


def sdd(x: Inputs) -> Tensor:
    right = x.teacher.argmax(-1) == x.label[:, None]
    return (
        16
        * (kl_values(x.student, x.teacher, 4) * torch.where(right == right[:, :1], 1.0, 2.0)).mean()
    )


def streamlined(losses: ModuleType, x: Inputs) -> Callable[[], Tensor]:
    both = [
        through(sides, make)(losses, x)
        for make in (lambda m: m.SKDInstanceLoss(**WHERE), lambda m: m.SKDDirectionLoss(**WHERE))
    ]
    return lambda: both[0]() + both[1]()


def wsld(x: Inputs) -> Tensor:
    student_loss, teacher_loss = (
        F.cross_entropy(side.detach(), x.label, reduction="none") for side in (x.student, x.teacher)
    )
    return (
        4 * (kl_values(x.student, x.teacher, 2) * (1 - (-student_loss / teacher_loss).exp())).mean()
    )


def listmle(x: Inputs) -> Tensor:
    scores = x.student.gather(1, x.teacher.argsort(1, descending=True))
    return (scores.flip(1).logcumsumexp(1) - scores.flip(1)).sum(1).mean()


def pld(x: Inputs) -> Tensor:
    order = x.teacher.scatter(1, x.label[:, None], math.inf).argsort(1, descending=True)
    scores, weight = x.student.gather(1, order), F.softmax(x.teacher, 1).gather(1, order)
    return (weight.flip(1) * (scores.flip(1).logcumsumexp(1) - scores.flip(1))).sum(1).mean()


def cs_kd(x: Inputs) -> Tensor:
    """Gather the log-probabilities of the existing pairs only."""
    own = F.log_softmax(x.student / 4, 1)
    one, other = same_label(x).nonzero(as_tuple=True)
    values = F.kl_div(own[one], own.detach()[other], reduction="none", log_target=True).sum(1)
    count = same_label(x).sum(1)
    return 16 * (values / count[one]).sum() / (count > 0).sum()


def same_label(x: Inputs) -> Tensor:
    return (x.label[:, None] == x.label).fill_diagonal_(False)


def ofa(x: Inputs) -> Tensor:
    true = F.one_hot(x.label, x.student.shape[1])
    return (
        ((true - (F.softmax(x.teacher, 1) + true) ** 1.5) * F.log_softmax(x.student, 1))
        .sum(1)
        .mean()
    )


def fgd(x: Inputs) -> Tensor:
    def share(stage: Tensor, over: tuple[int, ...]) -> Tensor:
        strength = stage.abs().mean(over)
        return strength[0].numel() * F.softmax(strength.flatten(1) / 0.5, 1).view_as(strength)

    (student_map, teacher_map), (student_channels, teacher_channels) = (
        [share(side, over) for side in sides(x)] for over in ((1,), (2, 3))
    )
    squares = (
        (x.student - x.teacher) ** 2 * teacher_map[:, None] * teacher_channels[:, :, None, None]
    )
    distance = F.l1_loss(student_map, teacher_map, reduction="sum") + F.l1_loss(
        student_channels, teacher_channels, reduction="sum"
    )
    return (
        0.001 * (squares * x.mask).sum()
        + 0.0005 * (squares * (1 - x.mask)).sum()
        + 0.001 * distance
    ) / len(student_map)


def ofd(x: Inputs) -> Tensor:
    target = torch.maximum(x.teacher, -x.channels.detach().view(-1, 1, 1))
    return (
        F.mse_loss(x.student, target, reduction="none") * ((x.student > target) | (target > 0))
    ).mean()


def nst(x: Inputs) -> Tensor:
    student, teacher = (F.normalize(side.flatten(2), dim=2) for side in sides(x))
    return (
        (torch.bmm(student, student.mT) ** 2).mean()
        + (torch.bmm(teacher, teacher.mT) ** 2).mean()
        - 2 * (torch.bmm(student, teacher.mT) ** 2).mean()
    )


def pkd(x: Inputs) -> Tensor:
    student, teacher = (
        (side - side.mean((0, 2, 3), keepdim=True)) / (side.std((0, 2, 3), keepdim=True) + 1e-6)
        for side in sides(x)
    )
    return F.mse_loss(student, teacher) / 2


def dist_plus(x: Inputs) -> Tensor:
    def correlation(student: Tensor, teacher: Tensor, dim: int) -> Tensor:
        centred = (side - side.mean(dim, keepdim=True) for side in (student, teacher))
        return F.cosine_similarity(*centred, dim=dim)

    student, teacher = sides(x)
    channels = correlation(student, teacher, 1)
    samples = correlation(student.sum(1), teacher.sum(1), 0)
    return 2 - channels.mean() - samples.mean()


def sad(x: Inputs) -> Tensor:
    attention, deeper_attention = (
        F.softmax((side**2).mean(1).flatten(1), 1) for side in (x.student, x.other.detach())
    )
    return F.mse_loss(attention, deeper_attention)


def mobilebert(x: Inputs) -> Tensor:
    width = x.student.shape[-1:]
    normed = F.mse_loss(
        F.layer_norm(x.student, width, eps=1e-12), F.layer_norm(x.teacher, width, eps=1e-12)
    )
    (student_variance, student_mean), (teacher_variance, teacher_mean) = (
        torch.var_mean(side, -1, correction=0) for side in sides(x)
    )
    return (
        100 * normed
        + 5000 * F.mse_loss(student_mean, teacher_mean)
        + 5 * F.l1_loss(student_variance, teacher_variance)
    )


def uskd(x: Inputs) -> Tensor:
    (student_log, teacher_log), label = (
        (F.log_softmax(side, -1) for side in sides(x)),
        x.label[:, None],
    )
    own = student_log.gather(-1, label)
    confidence = own.detach().exp() ** 2
    scores = sum(
        side / (1 + 1e-6 - side.gather(-1, label))
        for side in (student_log.detach(), teacher_log.exp())
    )
    shares = (
        1 / (1 + scores.argsort(-1, descending=True).argsort(-1).to(student_log.dtype))
    ).scatter(-1, label, 0)
    others = F.cross_entropy(
        x.student.scatter(-1, label, -1e4), shares / shares.sum(-1, keepdim=True)
    )
    weak = F.cross_entropy(x.teacher, x.label, label_smoothing=0.1)
    return -((confidence + 1 - confidence.mean()) * own).mean() + 0.1 * others + 0.005 * weak


def wkd_logit(x: Inputs, cost: Tensor) -> Tensor:
    label, kernel = x.label[:, None], (-cost / 0.05).exp()
    student_probs, teacher_probs = (
        F.softmax((side / 2).scatter(-1, label, -1000.0), -1) for side in sides(x)
    )
    columns = teacher_probs / ((student_probs > 0).to(student_probs.dtype) @ kernel)
    for _ in range(9):
        columns = teacher_probs / (student_probs / (columns @ kernel.T) @ kernel)
    transport = (student_probs * (columns @ (kernel * cost).T) / (columns @ kernel.T)).sum(-1)
    own = F.softmax(x.teacher, -1).gather(-1, label).squeeze(-1)
    return (own * F.cross_entropy(x.student, x.label, reduction="none") + 30 * transport).mean()


def kdsvd(x: Inputs) -> Tensor:
    def main(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        student_vectors, teacher_vectors = (
            torch.linalg.svd(side.flatten(2).mT, full_matrices=False)[2]
            for side in (student, teacher)
        )
        first = (
            teacher_vectors[:, 0]
            * teacher_vectors[:, 0]
            .gather(1, teacher_vectors[:, 0].abs().argmax(1, keepdim=True))
            .sign()
        )
        cosine = (student_vectors[:, :4] @ first[:, :, None]).squeeze(-1).detach()
        index = cosine.abs().argmax(1)
        rows = torch.arange(len(student_vectors), device=student_vectors.device)
        return student_vectors[rows, index] * cosine[rows, index].sign()[:, None], first

    (one, teacher_one), (two, teacher_two) = (
        main(x.student, x.teacher),
        main(x.other, x.other_teacher),
    )
    kernels = [
        (-((second[:, :, None] - first[:, None]) ** 2) / 8).exp()
        for second, first in ((two, one), (teacher_two, teacher_one))
    ]
    return (kernels[0] - kernels[1]).square().sum((1, 2)).mean()


def wkd_feature_full(x: Inputs) -> Tensor:
    both = [side.flatten(2) for side in sides(x)]
    means = [side.mean(2, keepdim=True) for side in both]
    student, teacher = (
        (side - mean) / (side.shape[2] - 1) ** 0.5 for side, mean in zip(both, means, strict=True)
    )
    shared = torch.linalg.matrix_norm(student.mT @ teacher, "nuc")
    moved = (means[0] - means[1]).square().sum((1, 2))
    return (
        2 * moved + student.square().sum((1, 2)) + teacher.square().sum((1, 2)) - 2 * shared
    ).mean()


def wcord(x: Inputs) -> Tensor:
    cost = 1 - unit(x.student) @ unit(x.teacher).T
    kernel, size = (-cost.detach() / 0.1).exp(), len(cost)
    rows = torch.ones_like(kernel[0])
    for _ in range(50):
        columns = 1 / (size * (rows @ kernel))
        rows = 1 / (size * (kernel @ columns))
    return (rows[:, None] * kernel * columns * cost).sum()


def wkd_feature(x: Inputs) -> Tensor:
    (student_variance, student_mean), (teacher_variance, teacher_mean) = (
        torch.var_mean(side, (2, 3)) for side in sides(x)
    )
    spread = ((student_variance + 1e-5).sqrt() - (teacher_variance + 1e-5).sqrt()) ** 2
    return (2 * (student_mean - teacher_mean) ** 2 + spread).sum(1).mean()


def fbkd(x: Inputs) -> Tensor:
    first = ((x.student - x.teacher) * x.mask.sqrt()).flatten(1).norm(dim=1)
    return (7e-5 * first + 7e-5 * (x.other - x.other_teacher).flatten(1).norm(dim=1)).mean()


def unit(side: Tensor) -> Tensor:
    return F.normalize(side, dim=-1)


def cosines(side: Tensor) -> Tensor:
    return unit(side) @ unit(side).mT


def cirkd_minibatch(x: Inputs) -> Tensor:
    scores = [
        cosines(side.flatten(2).mT.flatten(0, 1)).view(-1, side.shape[2] * side.shape[3])
        for side in sides(x)
    ]
    return kl(scores[0], scores[1], 0.1)


def cka(x: Inputs) -> Tensor:
    """Use products of columns, which are smaller if there are more samples than columns."""
    student, teacher = (side - side.mean(0) for side in sides(x))
    return 1 - (teacher.T @ student).square().sum() / (
        (student.T @ student).norm() * (teacher.T @ teacher).norm()
    )


def gaussian_cka(x: Inputs) -> Tensor:
    matrices = []
    for side in sides(x):
        squared = squared_distances(side)
        matrix = (-squared / (0.5 * squared.detach().sum() / (len(side) * (len(side) - 1)))).exp()
        matrices.append(matrix - matrix.mean(0) - matrix.mean(1, keepdim=True) + matrix.mean())
    return 1 - F.cosine_similarity(matrices[0].flatten(), matrices[1].flatten(), dim=0)


def squared_distances(side: Tensor) -> Tensor:
    lengths = side.square().sum(1)
    return (lengths[:, None] + lengths - 2 * side @ side.T).clamp(min=1e-12)


def matmul_distances(side: Tensor) -> Tensor:
    return torch.cdist(side, side, compute_mode="use_mm_for_euclid_dist")


def clip_gradient(x: Inputs) -> Tensor:
    def gradients(image: Tensor, text: Tensor) -> list[Tensor]:
        own = torch.eye(len(image), device=image.device)
        errors = [F.softmax(10 * image @ text.T, 1) - own, F.softmax(10 * text @ image.T, 1) - own]
        (there, back), scale = errors, 10 / len(image)
        return [
            scale * there @ text,
            scale * there.T @ image,
            scale * back @ image,
            scale * back.T @ text,
        ]

    gradient_pairs = zip(
        gradients(unit(x.student), unit(x.student_text)),
        gradients(unit(x.teacher), unit(x.teacher_text)),
        strict=True,
    )
    return sum(
        (F.mse_loss(a, b) for a, b in gradient_pairs), torch.zeros((), device=x.student.device)
    )


def correlation_congruence(x: Inputs) -> Tensor:
    student, teacher = (
        math.exp(-0.8) * (1 + 0.8 * product + 0.32 * product**2)
        for product in map(cosines, sides(x))
    )
    return F.mse_loss(student, teacher)


def crd(losses: ModuleType, x: Inputs) -> Callable[[], Tensor]:
    """Pass exponentials; torchdistill reads positive and negative scores from one matrix."""
    loss = losses.CRDLoss("m", "m", "m", 1, 2, 1, 100000)
    return lambda: loss.compute_contrast_loss(scores(x).exp())


def scores(x: Inputs) -> Tensor:
    return unit(x.student) @ x.memory.T / 0.1


def darkrank(x: Inputs) -> Tensor:
    student_distances, teacher_distances = (matmul_distances(side) for side in sides(x))
    nearest = (
        teacher_distances.detach()
        .clone()
        .fill_diagonal_(math.inf)
        .topk(4, 1, largest=False)
        .indices
    )
    ranked = -3 * student_distances.gather(1, nearest) ** 3
    return (ranked.flip(1).logcumsumexp(1) - ranked.flip(1)).sum(1).mean()


def dcd(x: Inputs) -> Tensor:
    both = unit(x.student) @ unit(x.teacher).T
    forward_log, backward_log = F.log_softmax(both, 1), F.log_softmax(both, 0).T
    own = torch.arange(len(both), device=both.device)
    return F.nll_loss(forward_log, own) + 0.5 * F.kl_div(
        forward_log, backward_log, reduction="batchmean", log_target=True
    )


def psd(x: Inputs) -> Tensor:
    def maps(*stages: Tensor) -> Tensor:
        return torch.stack([unit((stage**2).mean(1).flatten(1)) for stage in stages])

    student_maps, teacher_maps = maps(x.student, x.other), maps(x.teacher, x.other_teacher)
    return F.mse_loss(
        unit(student_maps[1] - student_maps[0]), unit(teacher_maps[1] - teacher_maps[0])
    )


def csd(x: Inputs) -> Tensor:
    student, teacher = (
        F.softmax(F.avg_pool2d(side, 2, ceil_mode=True).flatten(2) / 4, 2) for side in sides(x)
    )
    return F.mse_loss(student @ student.mT, teacher @ teacher.mT)


def ega(x: Inputs) -> Tensor:
    student, teacher = (unit(side - side.mean(1, keepdim=True)) for side in sides(x))
    return (
        0.8 * (teacher @ student.T - torch.eye(len(student), device=student.device)).norm()
        + 0.3 * (student @ student.T - teacher @ teacher.T).norm()
    )


def hkd(x: Inputs) -> Tensor:
    def symmetric_kl(student: Tensor, teacher: Tensor) -> Tensor:
        p, q = teacher / teacher.sum(1, keepdim=True), student / student.sum(1, keepdim=True)
        return ((p - q) * (p / q).log()).mean()

    return symmetric_kl(*((cosines(side) + 1) / 2 for side in sides(x))) + symmetric_kl(
        *(1 / (1 + matmul_distances(side)) for side in sides(x))
    )


def irg(x: Inputs) -> Tensor:
    student_edges, teacher_edges = (
        squared / squared.max() for squared in map(squared_distances, sides(x))
    )
    return F.mse_loss(student_edges, teacher_edges) + F.mse_loss(x.student, x.teacher)


def irg_transform(x: Inputs) -> Tensor:
    changes = []
    for before, after in ((x.student, x.student_text), (x.teacher, x.teacher_text)):
        edges = [squared / squared.max() for squared in map(squared_distances, (before, after))]
        changes.append((F.mse_loss(edges[0], edges[1]), F.mse_loss(before, after)))
    return (changes[0][0] - changes[1][0]) ** 2 + (changes[0][1] - changes[1][1]) ** 2


def itrd(x: Inputs) -> Tensor:
    student, teacher = ((side - side.mean(0)) / side.std(0) for side in sides(x))
    return (1 - (student * teacher).sum(0) / len(student)).abs().pow(2.02).sum().log2()


def itrd_mutual(x: Inputs) -> Tensor:
    student = cosines(x.student)
    product = student * cosines(x.teacher)
    return (student / len(student)).square().sum() - (product / len(student)).square().sum()


def lsp(x: Inputs) -> Tensor:
    """Softmax over the edges into each node, without torch_geometric."""
    source, target = x.edges
    shares = []
    for side in sides(x):
        value = (-(side[source] - side[target]).abs().sum(1) / 100).exp().exp()
        shares.append(value / torch.zeros_like(side[:, 0]).index_add(0, target, value)[target])
    return (shares[1] * (shares[1] / shares[0]).log()).sum() / target.unique().numel()


def seed(x: Inputs) -> Tensor:
    student, teacher = unit(x.student), unit(x.teacher)
    both = [
        torch.cat([(side * teacher).sum(1, keepdim=True), side @ x.memory.T], 1)
        for side in (student, teacher)
    ]
    return F.cross_entropy(both[0] / 0.2, F.softmax(both[1] / 0.01, 1))


def skd_pairwise(x: Inputs) -> Tensor:
    return F.mse_loss(
        *(cosines(F.max_pool2d(side, 2, ceil_mode=True).flatten(2).mT) for side in sides(x))
    )


def contrastive(image: Tensor, text: Tensor, both_ways: bool = True) -> Tensor:
    similarity = image @ text.T
    own = torch.arange(len(similarity), device=similarity.device)
    there = F.cross_entropy(similarity, own)
    return (there + F.cross_entropy(similarity.T, own)) / 2 if both_ways else there


def bernoulli_entropy(logits: Tensor) -> Tensor:
    """Return the entropy of independent classes, averaged over all entries."""
    return F.binary_cross_entropy_with_logits(logits, torch.sigmoid(logits))


def afd(x: Inputs) -> Tensor:
    student_maps, teacher_maps = (
        [unit((stage**2).mean(1).flatten(1)) for stage in side]
        for side in ((x.student, x.other), (x.teacher, x.other_teacher))
    )
    distances = torch.stack(
        [torch.stack([((a - b) ** 2).mean(1) for a in student_maps], 1) for b in teacher_maps], 1
    )
    return (x.attention * distances).sum((1, 2)).mean()


def diffkd(x: Inputs) -> Tensor:
    return (
        F.mse_loss(x.student, x.teacher) + x.attention[:, 0, 0].mean() + x.attention[:, 0, 1].mean()
    )


def kta(x: Inputs) -> Tensor:
    student, teacher = (side.flatten(1) for side in sides(x))
    student = student / student.norm(dim=1, keepdim=True)
    return F.l1_loss(student, teacher / teacher.norm(dim=1, keepdim=True))


def kta_affinity(x: Inputs) -> Tensor:
    student, teacher = (
        F.cosine_similarity(side.flatten(2)[..., None], side.flatten(2)[..., None, :], dim=1)
        for side in sides(x)
    )
    return F.mse_loss(student, teacher)


def factor_transfer(losses: ModuleType, x: Inputs) -> Callable[[], Tensor]:
    loss = losses.FTLoss(paraphraser_path="m", translator_path="m")
    return lambda: loss({"m": {"output": x.student}}, {"m": {"output": x.teacher}})


def fsp(x: Inputs) -> Tensor:
    student_flow = torch.bmm(x.student.flatten(2), x.other.flatten(2).mT) / x.student[0, 0].numel()
    return F.mse_loss(
        student_flow,
        torch.bmm(x.teacher.flatten(2), x.other_teacher.flatten(2).mT) / x.student[0, 0].numel(),
    )


def torchdistill_fsp(losses: ModuleType, x: Inputs) -> Callable[[], Tensor]:
    """Sum of column norms: the cost of the mean square, but another gradient."""
    named = {
        f"{side}_{which}": {"path": which, "io": "output"}
        for side in ("student", "teacher")
        for which in ("first", "second")
    }
    loss = losses.FSPLoss({"pair": named})
    student_outputs = {"first": {"output": x.student}, "second": {"output": x.other}}
    teacher_outputs = {"first": {"output": x.teacher}, "second": {"output": x.other_teacher}}
    return lambda: loss(student_outputs, teacher_outputs)


def ifvd(x: Inputs) -> Tensor:
    """Compute the prototypes by a product with one-hot labels."""
    mask = F.one_hot(x.label.flatten(1)).to(x.student.dtype)
    similarities = []
    for side in sides(x):
        pixels = side.flatten(2).mT
        prototypes = mask @ (mask.mT @ pixels)
        similarities.append(F.cosine_similarity(pixels, prototypes, dim=-1))
    return F.mse_loss(similarities[0], similarities[1])


def lwm(x: Inputs) -> Tensor:
    return (unit(x.student[:, 0].flatten(1)) - unit(x.teacher[:, 0].flatten(1))).abs().sum(1).mean()


def pad(losses: ModuleType, x: Inputs) -> Callable[[], Tensor]:
    loss = losses.PADL2Loss("m", "m", module_path="v")
    return lambda: loss(
        {"m": {"output": x.student}, "v": {"output": x.student_text}}, {"m": {"output": x.teacher}}
    )


def hierarchical_context(losses: ModuleType, x: Inputs) -> Callable[[], Tensor]:
    loss = losses.HierarchicalContextLoss("m", "output", "m", "output")
    return lambda: loss({"m": {"output": (x.student, None)}}, {"m": {"output": x.teacher}})


def theia(x: Inputs) -> Tensor:
    cosine = F.cosine_similarity(x.student.flatten(1), x.teacher.flatten(1)).mean()
    return 0.9 * (1 - cosine) + 0.1 * F.smooth_l1_loss(x.student, x.teacher)


def unic(x: Inputs) -> Tensor:
    return 0.5 * (
        1 - F.cosine_similarity(x.student, x.teacher, dim=-1).mean()
    ) + 0.5 * F.smooth_l1_loss(x.student, x.teacher)


def vid(losses: ModuleType, x: Inputs) -> Callable[[], Tensor]:
    loss = losses.VIDLoss(pairs("student", "teacher"))
    return lambda: loss(
        {"m": {"output": (x.student, x.channels[:, None, None])}}, {"m": {"output": x.teacher}}
    )


def congruence(losses: ModuleType, x: Inputs) -> Callable[[], Tensor]:
    """Kernel of unit embeddings, row by row; a norm in place of a square has the same direction."""
    loss = losses.CCKDLoss("m", "m", {"type": "gaussian", "gamma": 0.4, "max_p": 2}, "batchmean")
    return lambda: loss({"m": {"output": unit(x.student)}}, {"m": {"output": unit(x.teacher)}})


def relational(distance: bool) -> Callable[[ModuleType], Any]:
    return lambda losses: losses.RKDLoss("m", "m", float(distance), float(not distance), "mean")


def instil_crd(loss: Callable[..., Tensor], x: Inputs) -> Tensor:
    similarities = scores(x)
    return loss(similarities[:, 0], similarities[:, 1:], 100000)


def regression_kd(x: Inputs) -> Tensor:
    has_label = x.real_label != -100
    student_error, teacher_error = (
        (F.mse_loss(side, x.real_label, reduction="none") * has_label).sum(1)
        for side in (x.student, x.teacher)
    )
    return torch.where(student_error > teacher_error, student_error, 0.0).mean()


def tinybert_attention(x: Inputs) -> Tensor:
    return F.mse_loss(*(torch.where(side <= -100, 0.0, side) for side in sides(x)))
