"""The contrastive loss pulls the student's embeddings where it pulls the teacher's."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from instil.core import Batch, Card, Outputs
from instil.functional.directions import pairwise_dot
from instil.functional.feature_maps import require_same_shape
from instil.functional.similarities import scaled_similarities
from instil.modules.learned_scale import Form, require_form
from instil.objectives.bases.image_text_objective import WITH_SCALE, ImageTextObjective, unit_pair

Pair = tuple[Tensor, Tensor]


def clip_gradient_loss(
    student: Pair,
    teacher: Pair,
    student_scale: Tensor | float,
    teacher_scale: Tensor | float,
    form: Form = "code",
) -> Tensor:
    """Squared difference of the gradients of the image-text contrastive loss by the embeddings (Yang et al. 2024); a scalar.

    ``student`` and ``teacher`` are unit embeddings of images and texts (N, D) of one width. Mean over the entries, summed over the gradients by
    image and by text of the loss from image to text, and of the reverse. The similarities are multiplied by the scale (``form="paper"``) or, as
    in the authors' code, divided by it.
    """
    require_form(form)
    for name, mine, theirs in zip(("image", "text"), student, teacher, strict=True):
        require_same_shape(mine, theirs, f"clip_gradient_loss, {name}")
    sides = ((student, student_scale), (teacher, teacher_scale))
    pulls = [
        _gradients(image, text, scale if form == "paper" else 1 / scale)
        for (image, text), scale in sides
    ]
    return torch.stack([F.mse_loss(a, b) for a, b in zip(*pulls, strict=True)]).sum()


def _gradients(image: Tensor, text: Tensor, scale: Tensor | float) -> tuple[Tensor, ...]:
    """By image and text of the contrastive loss from image to text, and by text and image of the reverse."""
    found = []
    for one, other in ((image, text), (text, image)):
        error = scaled_similarities(one, other, scale).softmax(1) - torch.eye(
            len(one), dtype=one.dtype, device=one.device
        )
        found += [
            scale * pairwise_dot(error, other.T) / len(one),
            scale * pairwise_dot(error.T, one.T) / len(one),
        ]
    return tuple(found)


class CLIPGradient(ImageTextObjective):
    """CLIP-KD's gradient distillation (GD), in closed form; embeddings are projected first where the widths differ.

    The published weight is 1e8, of the code's form.

    ``form``: paper multiplies the similarities with ``logit_scale``; the authors' code, which gave their numbers, divides by it.
    """

    card = Card(
        "CLIP-KD: An Empirical Study of CLIP Model Distillation",
        "https://arxiv.org/abs/2307.12732",
        "CVPR",
        2024,
        source="relations",
        algorithms=("cross-modal", "contrastive"),
        tasks=("image_text",),
        couples=True,
        deviations="form: the code takes the scale of the logits for their temperature and divides by it",
        equation=r"\sum_{g} \frac{1}{N D} \left\Vert g^s - g^t \right\Vert_F^2, \quad g \in \left\lbrace \frac{\partial L_{vu}}{\partial V}, "
        r"\frac{\partial L_{vu}}{\partial U}, \frac{\partial L_{uv}}{\partial V}, \frac{\partial L_{uv}}{\partial U} \right\rbrace, \quad "
        r"L_{vu} = -\frac{1}{N} \sum_i \log \frac{e^{v_i^\top u_i / \gamma}}{\sum_j e^{v_i^\top u_j / \gamma}}",
        use="A CLIP student that should pull and push its embeddings as the teacher does. The gradients are written out, so that no second "
        "backward pass is needed; a linear layer an embedding where the widths differ.",
        pitfalls="Without its huge weight it does nothing: gradients are divided by N and, in the code's form, by the scale once more. The weight "
        "therefore belongs to one batch size, one scale and one form.",
    )
    needs: ClassVar = WITH_SCALE

    def __init__(self, form: Form = "code"):
        super().__init__()
        require_form(form)
        self.form: Form = form

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        scales = student["logit_scale"], teacher["logit_scale"]
        return clip_gradient_loss(
            self.projected(student), unit_pair(teacher), *scales, form=self.form
        )
