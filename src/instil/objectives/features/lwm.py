"""Learning without memorizing: Grad-CAM maps of the teacher's predicted class match."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from instil.core import Batch, Card, Objective, Outputs, to_float32
from instil.functional.attention_maps import scaled_l2_normalize
from instil.functional.feature_maps import as_map, common_sizes, require_same_items, resize
from instil.functional.logits import apply_reduction, require_same_logits
from instil.functional.pairs import feature_levels
from instil.functional.pooling import mean_positions
from instil.items import Items


def lwm_loss(student_maps: Tensor, teacher_maps: Tensor, reduction: str = "mean") -> Tensor:
    """Attention distillation loss of learning without memorizing (Dhar et al. 2019, Eq. 4).

    Sum of the absolute differences of two attention maps at unit length. The larger map is pooled
    to the smaller grid.

    Args:
        student_maps: attention maps (N, *grid).
        teacher_maps: attention maps (N, *grid); the grids may differ.
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if the numbers of samples differ, or the smaller grid has one position, which
            makes all maps equal.

    Example:
        >>> import torch
        >>> lwm_loss(torch.ones(1, 2, 2), torch.eye(2)[None])
        tensor(1.4142)
    """
    require_same_items(student_maps, teacher_maps, "lwm_loss")
    grid = common_sizes(student_maps.shape[1:], teacher_maps.shape[1:])
    if math.prod(grid) == 1:
        shapes = f"{tuple(student_maps.shape)} and {tuple(teacher_maps.shape)}"
        raise ValueError(
            "features: attention maps of one position are always equal. Expected more than one "
            f"position, got maps {shapes}. Tap an earlier layer."
        )
    student_attention = _unit_attention(student_maps, grid)
    teacher_attention = _unit_attention(teacher_maps, grid)
    return apply_reduction((student_attention - teacher_attention).abs().sum(1), reduction)


def _unit_attention(maps: Tensor, grid: tuple[int, ...]) -> Tensor:
    """Maps (N, *grid) on another grid, as vectors of unit length (N, P)."""
    return scaled_l2_normalize(resize(to_float32(maps).unsqueeze(1), grid).flatten(1))


def grad_cam(features: Tensor, scores: Tensor, create_graph: bool = False) -> Tensor:
    """Grad-CAM map: positive contribution of each position (Selvaraju et al. 2017, Eq. 1 and 2).

    Args:
        features: feature map (N, C, *grid) or tokens (N, L, C).
        scores: class scores (N,), computed from ``features``.
        create_graph: make the gradient differentiable.

    Returns:
        (N, *grid).
    """
    (gradient,) = torch.autograd.grad(
        scores.sum(), features, retain_graph=True, create_graph=create_graph
    )
    importance = mean_positions(to_float32(as_map(gradient)), keepdim=True)
    return (importance * to_float32(as_map(features))).sum(1).relu()


def explained_level(outputs: Outputs) -> Tensor:
    """Return the deepest feature level, or for tokens the level before it.

    A classifier may use only the class token of the last block, whose other tokens then have no
    gradient.
    """
    levels = feature_levels(outputs)
    return levels[-2] if levels[-1].ndim == 3 and len(levels) > 1 else levels[-1]


class LwM(Objective):
    """Grad-CAM maps of the deepest levels for the class that the teacher predicts.

    It needs a real-valued input and a teacher that is differentiable. It costs one more backward
    pass through the last layers of each network.
    """

    card = Card(
        "Learning without memorizing",
        "https://arxiv.org/abs/1811.08051",
        "CVPR",
        2019,
        source="features",
        algorithms=("attention",),
        deviations="Both maps are those of the class that the teacher predicts. The paper, which "
        "learns new classes, uses the old class with the largest score of the new network.",
        equation=r"\left\lVert \frac{Q^s}{\lVert Q^s \rVert_2} - \frac{Q^t}{\lVert Q^t \rVert_2} "
        r"\right\rVert_1, \quad Q = \left( \sum_d f_d\, \frac{1}{P} \sum_p \frac{\partial "
        r"z_y}{\partial f_{dp}} \right)_+, \; y = \arg\max_c z^t_c",
        use="In addition to kd, if the student should decide by the same image regions. It was "
        "published for learning new classes without the data of the old ones. It has no "
        "parameters and supports any channels. It costs a double backward pass from the deepest "
        "level on.",
        pitfalls="A map without evidence for the class is zero, and so is its gradient. Deepest "
        "levels have few positions and little information: tap an earlier one. Wrong predictions "
        "of the teacher are explained as well.",
    )
    needs: ClassVar = dict.fromkeys(
        ("student", "teacher"), (("features",), ("logits",), ("input",))
    )
    items = Items(per_sample=True)

    def build(self, student_outputs: Outputs, teacher_outputs: Outputs) -> None:
        """Check the shapes of both sides.

        Raises:
            ValueError: if the logits differ in shape or are not (N, C), or a level has one
                position.
        """
        student_logits = student_outputs["logits"]
        require_same_logits(student_logits, teacher_outputs["logits"])
        if student_logits.ndim != 2:
            raise ValueError(
                "logits: lwm needs one class per sample. Expected shape (N, C), got "
                f"{tuple(student_logits.shape)}."
            )
        lwm_loss(
            as_map(explained_level(student_outputs)).mean(1),
            as_map(explained_level(teacher_outputs)).mean(1),
        )

    def forward(self, student_outputs: Outputs, teacher_outputs: Outputs, batch: Batch) -> Tensor:
        student_logits = student_outputs["logits"]
        teacher_logits = teacher_outputs["logits"]
        if not teacher_logits.requires_grad:
            raise ValueError(
                "teacher: the logits have no gradient with respect to the input. Expected a "
                "network, got stored or remote outputs. Use a network as the teacher."
            )
        predicted = teacher_logits.argmax(1, keepdim=True)
        student_scores = to_float32(student_logits).gather(1, predicted).squeeze(1)
        teacher_scores = to_float32(teacher_logits).gather(1, predicted).squeeze(1)
        teacher_maps = grad_cam(explained_level(teacher_outputs), teacher_scores).detach()
        student_maps = grad_cam(explained_level(student_outputs), student_scores, create_graph=True)
        return lwm_loss(student_maps, teacher_maps, "none")
