"""Centred kernel alignment: the batch's arrangement agrees up to rotation and scale."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, Positive, check_bounds, to_float32
from instil.functional.choices import require_choice
from instil.functional.directions import pairwise_dot
from instil.functional.feature_maps import require_same_items
from instil.functional.similarities import centred, inner_products, pairwise_squared_distances
from instil.objectives.bases.relation_objective import RelationObjective

Kernel = Literal["linear", "rbf"]


@check_bounds
def cka_loss(
    student_embedding: Tensor,
    teacher_embedding: Tensor,
    kernel: Kernel = "linear",
    bandwidth: Positive = 0.5,
    centre: bool = True,
) -> Tensor:
    """One minus the cosine of the centred kernel matrices, CKA (Kornblith et al. 2019).

    If all samples of a side are equal, as with one sample, there is no alignment: the loss is 1,
    without a gradient.

    Args:
        student_embedding: (N, ...).
        teacher_embedding: (N, ...), of any width.
        kernel: ``"linear"`` or ``"rbf"`` (Gaussian).
        bandwidth: width of the Gaussian, in root mean squared distances between the samples.
        centre: whether the kernel matrices are centred.

    Returns:
        Scalar in [0, 1].

    Raises:
        ValueError: if the numbers of samples differ, or if ``kernel`` is unknown.

    Example:
        >>> import torch
        >>> cka_loss(torch.tensor([[0.0], [1.0], [3.0]]), torch.eye(3))
        tensor(0.2929)
    """
    require_same_items(student_embedding, teacher_embedding, "cka_loss")
    require_choice("kernel", kernel, ("linear", "rbf"))
    flat = [to_float32(samples).flatten(1) for samples in (student_embedding, teacher_embedding)]
    # With fewer features than samples, (D, D) matrices are smaller than the (N, N) kernels.
    if kernel == "linear" and max(side.shape[1] for side in flat) < len(student_embedding):
        return 1 - _by_features(*(side - side.mean(0) if centre else side for side in flat))
    matrices = [
        inner_products(side) if kernel == "linear" else _gaussian(side, bandwidth) for side in flat
    ]
    student_kernel, teacher_kernel = (
        F.normalize((centred(matrix) if centre else matrix).flatten(), dim=0) for matrix in matrices
    )
    return 1 - (student_kernel * teacher_kernel).sum()


def _by_features(student_samples: Tensor, teacher_samples: Tensor) -> Tensor:
    """Cosine of the Gram matrices (N, N) of samples (N, D), computed from matrices (D, D).

    tr(AA' BB') is the squared Frobenius norm of A'B.
    """
    student, teacher = (
        # Scaled to length 1 first, because fourth powers of the samples could overflow. The cosine
        # does not depend on the scale, so the length needs no gradient.
        side / torch.linalg.vector_norm(side.detach()).clamp_min(torch.finfo(side.dtype).tiny)
        for side in (student_samples, teacher_samples)
    )
    between = pairwise_dot(teacher.mT, student.mT)
    within_student = pairwise_dot(student.mT, student.mT)
    within_teacher = pairwise_dot(teacher.mT, teacher.mT)
    lengths = torch.linalg.vector_norm(within_student) * torch.linalg.vector_norm(within_teacher)
    cosine: Tensor = between.square().sum() / lengths.clamp_min(1e-12)
    return cosine


def _gaussian(samples: Tensor, bandwidth: float) -> Tensor:
    squared = pairwise_squared_distances(samples)
    # Detached: the width of the kernel adapts to the samples and is not trained.
    mean = squared.detach().sum() / max(1, len(samples) * (len(samples) - 1))
    return (-squared / (2 * bandwidth**2 * mean).clamp_min(1e-12)).exp()


class CKA(RelationObjective):
    """Alignment of the batch's embeddings with the teacher's under a kernel.

    Embeddings are (N, D) of any widths; nothing is learned.
    """

    card = Card(
        "Rethinking centered kernel alignment in knowledge distillation",
        "https://arxiv.org/abs/2401.11824",
        "IJCAI",
        2024,
        source="relations",
        couples=True,
        deviations="1 - CKA of the samples, as defined by Kornblith et al. (ICML 2019), with "
        "their bandwidth in root mean squared distances instead of medians. The paper's code does "
        "not centre (centre: false). Its terms over classes and patches are not included.",
        equation=r"1 - \frac{\langle H K^s H, H K^t H \rangle_F}{\Vert H K^s H \Vert_F \Vert H "
        r"K^t H \Vert_F}, \quad K_{ij} = f_i^\top f_j, \quad H = I - \tfrac{1}{N} "
        r"\mathbf{1}\mathbf{1}^\top",
        use="When the teacher's embedding is wider or comes from another kind of network, and only "
        "the arrangement of the samples matters. Rotation and scale are free. No parameters; an "
        "N x N matrix.",
        pitfalls="With few samples in a batch CKA is biased towards 1, so small batches give a "
        "weak signal. The value lies in [0, 1]. Its gradient fades as the embeddings grow, "
        "because their scale is free.",
    )

    def __init__(
        self,
        kernel: Annotated[Kernel, Doc("linear, or rbf for a Gaussian kernel")] = "linear",
        bandwidth: Annotated[
            Positive,
            Doc("width of the Gaussian, in root mean squared distances between the samples"),
        ] = 0.5,
        centre: Annotated[bool, Doc("centre the kernel matrices")] = True,
    ):
        super().__init__()
        self.kernel = kernel
        self.bandwidth = bandwidth
        self.centre = centre

    def loss(self, student_embedding: Tensor, teacher_embedding: Tensor, batch: Batch) -> Tensor:
        return cka_loss(
            student_embedding, teacher_embedding, self.kernel, self.bandwidth, self.centre
        )
