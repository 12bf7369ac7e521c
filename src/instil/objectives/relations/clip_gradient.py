"""Gradient distillation for CLIP: gradients of the contrastive loss w.r.t. the embeddings agree."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, Outputs
from instil.functional.directions import pairwise_dot
from instil.functional.feature_maps import require_same_shape
from instil.functional.similarities import scaled_similarities
from instil.modules.learned_scale import Form, require_form
from instil.objectives.bases.image_text_objective import WITH_SCALE, ImageTextObjective, unit_pair

Pair = tuple[Tensor, Tensor]


def clip_gradient_loss(
    student_embedding: Pair,
    teacher_embedding: Pair,
    student_scale: Tensor | float,
    teacher_scale: Tensor | float,
    form: Form = "code",
) -> Tensor:
    """Squared difference of the gradients of the contrastive loss (Yang et al. 2024).

    The gradients are with respect to images and texts, of the loss from image to text and of the
    reverse. Mean over the entries, summed over the four gradients.

    Args:
        student_embedding: unit embeddings (N, D) of images and of texts.
        teacher_embedding: unit embeddings (N, D) of images and of texts, of the same width.
        student_scale: scale of the student's similarities.
        teacher_scale: scale of the teacher's similarities.
        form: ``"paper"``: similarities are multiplied by the scale; ``"code"``: divided by it, as
            in the authors' code.

    Returns:
        Scalar.

    Raises:
        ValueError: if the shapes differ or ``form`` is unknown.

    Example:
        >>> import torch
        >>> unit = torch.eye(2)
        >>> clip_gradient_loss((unit, unit), (unit, unit.flip(0)), 1.0, 1.0)
        tensor(0.6068)
    """
    require_form(form)
    for name, student_units, teacher_units in zip(
        ("image", "text"), student_embedding, teacher_embedding, strict=True
    ):
        require_same_shape(student_units, teacher_units, f"clip_gradient_loss, {name}")
    student_gradients, teacher_gradients = (
        _gradients(image, text, scale if form == "paper" else 1 / scale)
        for (image, text), scale in (
            (student_embedding, student_scale),
            (teacher_embedding, teacher_scale),
        )
    )
    pairs = zip(student_gradients, teacher_gradients, strict=True)
    return torch.stack([F.mse_loss(student, teacher) for student, teacher in pairs]).sum()


def _gradients(image: Tensor, text: Tensor, scale: Tensor | float) -> list[Tensor]:
    """Gradients w.r.t. image and text of the loss from image to text, then of the reverse.

    The gradients of the reverse loss are w.r.t. text and image.
    """
    gradients = []
    for query, key in ((image, text), (text, image)):
        identity = torch.eye(len(query), dtype=query.dtype, device=query.device)
        # The gradient of cross-entropy in closed form: a second derivative through autograd is not
        # needed.
        error = scaled_similarities(query, key, scale).softmax(1) - identity
        gradients.append(scale * pairwise_dot(error, key.T) / len(query))
        gradients.append(scale * pairwise_dot(error.T, query.T) / len(query))
    return gradients


class CLIPGradient(ImageTextObjective):
    """CLIP-KD's gradient distillation (GD), in closed form.

    If the widths differ, the student's embeddings are projected first. The published weight is
    1e8, for the code's form.
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
        published_weight=100000000.0,
        weight_setting="CLIP-KD, CC3M and CC12M, batches of 1024",
        deviations="Option form: the code treats the scale of the logits as their temperature and "
        "divides by it.",
        equation=r"\sum_{g} \frac{1}{N D} \left\Vert g^s - g^t \right\Vert_F^2, \quad g \in "
        r"\left\lbrace \frac{\partial L_{vu}}{\partial V}, \frac{\partial L_{vu}}{\partial U}, "
        r"\frac{\partial L_{uv}}{\partial V}, \frac{\partial L_{uv}}{\partial U} \right\rbrace, "
        r"\quad L_{vu} = -\frac{1}{N} \sum_i \log \frac{e^{v_i^\top u_i / \gamma}}{\sum_j "
        r"e^{v_i^\top u_j / \gamma}}",
        use="For a CLIP student whose embeddings should move like the teacher's. The gradients "
        "are computed in closed form, so no second backward pass is needed; a linear layer per "
        "embedding if the widths differ.",
        pitfalls="Without its very large weight it has no effect: gradients are divided by N and, "
        "in the code's form, once more by the scale. The weight therefore fits only one batch "
        "size, one scale and one form.",
    )
    needs: ClassVar = WITH_SCALE

    def __init__(
        self,
        form: Annotated[
            Form,
            Doc(
                "paper: multiplies the similarities by `logit_scale`; "
                "code: divides by it, as in the published results"
            ),
        ] = "code",
    ):
        super().__init__()
        require_form(form)
        self.form: Form = form

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        return clip_gradient_loss(
            self.projected(student),
            unit_pair(teacher),
            student["logit_scale"],
            teacher["logit_scale"],
            form=self.form,
        )
