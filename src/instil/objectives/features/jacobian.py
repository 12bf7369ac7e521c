"""Jacobian matching: the student's answer changes with its input as the teacher's does."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor

from instil.core import Batch, Card, Objective, Outputs, to_float32
from instil.functional.attention_maps import scaled_l2_normalize
from instil.functional.errors import squared_error
from instil.functional.feature_maps import require_same_shape
from instil.functional.logits import apply_reduction, require_same_logits
from instil.functional.noise import box_muller


def jacobian_loss(
    student: Tensor, teacher: Tensor, normalize: bool = False, reduction: str = "mean"
) -> Tensor:
    """Squared distance of gradients by the input (N, P, ...), mean over P directions of the answer (Srinivas and Fleuret 2018, eq. 4).

    With directions drawn from a normal distribution it is on average the squared distance of the Jacobians, summed over their rows (Czarnecki et
    al. 2017, eq. 3). ``normalize``: each gradient to unit length first. Raises ValueError where the shapes differ.
    """
    student, teacher = require_same_shape(student, teacher, "jacobian_loss")
    student, teacher = student.flatten(2), teacher.flatten(2)
    if normalize:
        student, teacher = scaled_l2_normalize(student), scaled_l2_normalize(teacher)
    return apply_reduction(squared_error(student, teacher) * student.shape[2], reduction)


def projected_jacobian(
    logits: Tensor, given: Tensor, directions: Tensor, create_graph: bool = False
) -> Tensor:
    """Gradients (N, P, ...) of logits (N, ...) along directions (N, P, ...) by what they were computed from, ``given`` (N, ...)."""
    along = (to_float32(logits).unsqueeze(1) * directions).flatten(2).sum((0, 2))
    return to_float32(
        torch.stack(
            [
                torch.autograd.grad(one, given, retain_graph=True, create_graph=create_graph)[0]
                for one in along
            ],
            1,
        )
    )


class Jacobian(Objective):
    """Gradients by the input of the logits along random directions are alike. Needs an input of real numbers and a teacher that can be asked for
    gradients; it costs two backward passes more a direction, one of each net. Attention is not fused meanwhile.

    ``directions``: random directions of the answer, for each sample and step anew.
    ``normalize``: each gradient to unit length first, so that how steep the answers are does not matter.
    """

    card = Card(
        "Knowledge transfer with Jacobian matching",
        "https://arxiv.org/abs/1803.00443",
        "ICML",
        2018,
        source="features",
        finite_logits=True,
        deviations="random directions stand for the whole Jacobian, as in Sobolev training (NeurIPS 2017); the squared difference of the answers "
        "that the paper adds is logit_mse",
        equation=r"\frac{1}{J} \sum_{j=1}^{J} \left\lVert \nabla_x (v_j^\top z^s) - \nabla_x (v_j^\top z^t) \right\rVert_2^2, \quad v_j \sim "
        r"\mathcal{N}(0, I)",
        use="Little data: how the answer changes around each sample is taught beside the answer itself, so kd or logit_mse belongs with it. It has "
        "no parameters and costs a double backward pass through the student.",
        pitfalls="Values grow with the size of the input and with how steep the teacher is: start with a small weight, or normalize. One direction "
        "is a noisy estimate; drawing needs an index. In nets of ReLUs it reaches weights but no biases.",
    )
    needs: ClassVar = dict.fromkeys(("student", "teacher"), (("logits",), ("input",)))
    per_sample = True

    def __init__(self, directions: Annotated[int, Ge(1)] = 1, normalize: bool = False):
        super().__init__()
        self.directions, self.normalize = directions, normalize

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """Raises ValueError where the answers have different shapes."""
        require_same_logits(student["logits"], teacher["logits"])

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        if not teacher["logits"].requires_grad:
            raise ValueError(
                "the teacher cannot be asked for gradients by the input (it is remembered, or out of reach); take a net as the teacher"
            )
        shape = tuple(student["logits"].shape[1:])
        drawn = box_muller(batch, (self.directions, *shape)).to(to_float32(student["logits"]).dtype)
        mine = projected_jacobian(student["logits"], student["input"], drawn, create_graph=True)
        theirs = projected_jacobian(teacher["logits"], teacher["input"], drawn).detach()
        return jacobian_loss(mine, theirs, self.normalize, "none")
