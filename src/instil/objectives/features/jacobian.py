"""Jacobian matching: the gradients of the logits with respect to the input match."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, Objective, Outputs, to_float32
from instil.functional.attention_maps import scaled_l2_normalize
from instil.functional.errors import squared_error
from instil.functional.feature_maps import require_same_shape
from instil.functional.logits import apply_reduction, require_same_logits
from instil.functional.noise import box_muller
from instil.items import Items


def jacobian_loss(
    student_gradients: Tensor,
    teacher_gradients: Tensor,
    normalize: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """Jacobian matching loss (Srinivas and Fleuret 2018, Eq. 4).

    Squared distance of gradients with respect to the input, mean over P directions. For normally
    distributed directions its expectation is the squared Frobenius distance of the Jacobians
    (Czarnecki et al. 2017, Eq. 3).

    Args:
        student_gradients: (N, P, ...), gradients of the logits along P directions.
        teacher_gradients: (N, P, ...).
        normalize: scale each gradient to unit length first.
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> jacobian_loss(torch.zeros(1, 1, 2), torch.ones(1, 1, 2))
        tensor(2.)
    """
    student_gradients, teacher_gradients = require_same_shape(
        student_gradients, teacher_gradients, "jacobian_loss", 3
    )
    student_rows = student_gradients.flatten(2)
    teacher_rows = teacher_gradients.flatten(2)
    if normalize:
        student_rows = scaled_l2_normalize(student_rows)
        teacher_rows = scaled_l2_normalize(teacher_rows)
    # Mean over the directions only: the mean over the input entries is undone.
    return apply_reduction(
        squared_error(student_rows, teacher_rows) * student_rows.shape[2], reduction
    )


def projected_jacobian(
    logits: Tensor, inputs: Tensor, directions: Tensor, create_graph: bool = False
) -> Tensor:
    """Gradients of the logits along directions with respect to the inputs.

    Args:
        logits: (N, ...), computed from ``inputs``.
        inputs: (N, ...), with ``requires_grad``.
        directions: (N, P, ...), P directions in the space of the logits.
        create_graph: make the result differentiable.

    Returns:
        (N, P, ...), P gradients in the shape of the inputs.
    """
    projections = (to_float32(logits).unsqueeze(1) * directions).flatten(2).sum((0, 2))
    gradients = []
    for value in projections:
        (gradient,) = torch.autograd.grad(
            value, inputs, retain_graph=True, create_graph=create_graph
        )
        gradients.append(gradient)
    return to_float32(torch.stack(gradients, 1))


class Jacobian(Objective):
    """Gradients of the logits along random directions with respect to the input.

    It needs a real-valued input and a teacher that is differentiable. Each direction costs one more
    backward pass of both networks. Fused attention is disabled.
    """

    card = Card(
        "Knowledge transfer with Jacobian matching",
        "https://arxiv.org/abs/1803.00443",
        "ICML",
        2018,
        source="features",
        finite_logits=True,
        deviations="Random directions replace the full Jacobian, as in Sobolev training (NeurIPS "
        "2017). The squared difference of the outputs, which the paper adds, is logit_mse.",
        equation=r"\frac{1}{J} \sum_{j=1}^{J} \left\lVert \nabla_x (v_j^\top z^s) - \nabla_x "
        r"(v_j^\top z^t) \right\rVert_2^2, \quad v_j \sim \mathcal{N}(0, I)",
        use="Little data. It transfers how the output changes around each sample, not the output: "
        "add kd or logit_mse. It has no parameters and costs a double backward pass through the "
        "student.",
        pitfalls="Values grow with the size of the input and the slope of the teacher: start with "
        "a small weight, or normalize. One direction is a noisy estimate; the random directions "
        "need an index. In networks with ReLUs it trains weights but no biases.",
    )
    needs: ClassVar = dict.fromkeys(("student", "teacher"), (("logits",), ("input",)))
    items = Items(per_sample=True)

    def __init__(
        self,
        directions: Annotated[
            int, Ge(1), Doc("number of random directions, drawn for each sample and step")
        ] = 1,
        normalize: Annotated[
            bool,
            Doc("scale each gradient to unit length first, so that only its direction counts"),
        ] = False,
    ):
        super().__init__()
        self.directions = directions
        self.normalize = normalize

    def build(self, student_outputs: Outputs, teacher_outputs: Outputs) -> None:
        """Check the shapes of the logits.

        Raises:
            ValueError: if the shapes differ.
        """
        require_same_logits(student_outputs["logits"], teacher_outputs["logits"])

    def forward(self, student_outputs: Outputs, teacher_outputs: Outputs, batch: Batch) -> Tensor:
        student_logits = student_outputs["logits"]
        teacher_logits = teacher_outputs["logits"]
        if not teacher_logits.requires_grad:
            raise ValueError(
                "teacher: the logits have no gradient with respect to the input. Expected a "
                "network, got stored or remote outputs. Use a network as the teacher."
            )
        shape = (self.directions, *student_logits.shape[1:])
        directions = box_muller(batch, shape, f"{self.stream}.directions").to(
            to_float32(student_logits).dtype
        )
        student_gradients = projected_jacobian(
            student_logits, student_outputs["input"], directions, create_graph=True
        )
        teacher_gradients = projected_jacobian(
            teacher_logits, teacher_outputs["input"], directions
        ).detach()
        return jacobian_loss(student_gradients, teacher_gradients, self.normalize, "none")
