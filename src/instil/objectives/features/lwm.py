"""Learning without memorizing: what the student looks at for the teacher's answer is what the teacher looks at (Grad-CAM)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from instil.core import Batch, Card, Objective, Outputs, to_float32
from instil.functional.attention_maps import scaled_l2_normalize
from instil.functional.feature_maps import as_map, resize
from instil.functional.logits import apply_reduction, require_same_logits
from instil.functional.pairs import feature_levels


def lwm_loss(student: Tensor, teacher: Tensor, reduction: str = "mean") -> Tensor:
    """Sum of the absolute differences of two attention maps (N, H, W) of unit length (Dhar et al. 2019, eq. 4); the larger one is pooled.

    Raises ValueError where only one position is left, which makes every map the same.
    """
    height, width = (min(a, b) for a, b in zip(student.shape[1:], teacher.shape[1:], strict=True))
    if height * width == 1:
        raise ValueError(
            f"attention needs more than one position, not maps {tuple(student.shape)} and {tuple(teacher.shape)}"
        )
    mine, theirs = (
        scaled_l2_normalize(resize(to_float32(side).unsqueeze(1), (height, width)).flatten(1))
        for side in (student, teacher)
    )
    return apply_reduction((mine - theirs).abs().sum(1), reduction)


def grad_cam(stage: Tensor, scores: Tensor, create_graph: bool = False) -> Tensor:
    """Where a stage, map or tokens, speaks for the scores (N,) computed from it: (N, H, W) (Selvaraju et al. 2017, eq. 1 and 2)."""
    (gradient,) = torch.autograd.grad(
        scores.sum(), stage, retain_graph=True, create_graph=create_graph
    )
    importance = to_float32(as_map(gradient)).mean((2, 3), keepdim=True)
    return (importance * to_float32(as_map(stage))).sum(1).relu()


def explained(outputs: Outputs) -> Tensor:
    """The deepest stage; of tokens the one before it, since a classifier may read the last block's class token alone."""
    found = feature_levels(outputs)
    return found[-2] if found[-1].ndim == 3 and len(found) > 1 else found[-1]


class LwM(Objective):
    """Grad-CAM of the deepest stages for the class that the teacher finds likeliest. Needs an input of real numbers and a teacher that can be asked
    for gradients; it costs one backward pass more of the end of each net.
    """

    card = Card(
        "Learning without memorizing",
        "https://arxiv.org/abs/1811.08051",
        "CVPR",
        2019,
        source="features",
        algorithms=("attention",),
        deviations="both maps are of the class that the teacher finds likeliest; the paper, which learns new classes, takes the old class that the "
        "new net finds likeliest",
        equation=r"\left\lVert \frac{Q^s}{\lVert Q^s \rVert_2} - \frac{Q^t}{\lVert Q^t \rVert_2} \right\rVert_1, \quad Q = \left( \sum_d f_d\, "
        r"\frac{1}{P} \sum_p \frac{\partial z_y}{\partial f_{dp}} \right)_+, \; y = \arg\max_c z^t_c",
        use="Beside kd, where the student should decide by the same parts of the image; published for learning new classes without the data of the "
        "old ones. It has no parameters and takes any channels; it costs a double backward pass from the deepest stage on.",
        pitfalls="Where nothing in a map speaks for the class it is zero, and so is its gradient. Deepest stages have few positions and say "
        "little: tap an earlier one. Wrong answers of the teacher are explained as well.",
    )
    needs: ClassVar = dict.fromkeys(
        ("student", "teacher"), (("features",), ("logits",), ("input",))
    )
    per_sample = True

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """Raises ValueError where the answers have different shapes or a stage has one position."""
        require_same_logits(student["logits"], teacher["logits"])
        if student["logits"].ndim != 2:
            raise ValueError(
                f"lwm takes the class of a sample, and the logits are {tuple(student['logits'].shape)}; it needs (N, C)"
            )
        maps = [as_map(explained(side)).mean(1) for side in (student, teacher)]
        lwm_loss(maps[0], maps[1])

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        if not teacher["logits"].requires_grad:
            raise ValueError(
                "the teacher cannot be asked for gradients (it is remembered, or out of reach); take a net as the teacher"
            )
        answer = teacher["logits"].argmax(1, keepdim=True)
        mine, theirs = (
            to_float32(side["logits"]).gather(1, answer).squeeze(1) for side in (student, teacher)
        )
        looked = grad_cam(explained(teacher), theirs).detach()
        return lwm_loss(grad_cam(explained(student), mine, create_graph=True), looked, "none")
