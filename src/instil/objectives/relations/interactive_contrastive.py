"""Interactive contrastive learning: student embeddings against the teacher's other modality."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, Outputs
from instil.functional.contrastive import contrastive
from instil.functional.similarities import scaled_similarities
from instil.items import Items
from instil.modules.learned_scale import Form, LearnedScale, require_form
from instil.objectives.bases.image_text_objective import ImageTextObjective, unit_pair


def interactive_contrastive_loss(
    student_image: Tensor,
    student_text: Tensor,
    teacher_image: Tensor,
    teacher_text: Tensor,
    scale: Tensor | float,
) -> Tensor:
    """Contrastive loss between the student's and the teacher's modalities (Yang et al. 2024).

    Mean of the loss of student images with teacher texts and that of student texts with teacher
    images. All embeddings are unit vectors of one width.

    Args:
        student_image: (N, D).
        student_text: (N, D).
        teacher_image: (N, D).
        teacher_text: (N, D).
        scale: factor of the similarities.

    Returns:
        Scalar.

    Example:
        >>> import torch
        >>> unit = torch.eye(2)
        >>> interactive_contrastive_loss(unit, unit, unit, unit, 1.0)
        tensor(0.3133)
    """
    return (
        contrastive(scaled_similarities(student_image, teacher_text, scale))
        + contrastive(scaled_similarities(student_text, teacher_image, scale))
    ) / 2


class InteractiveContrastive(ImageTextObjective):
    """CLIP-KD's ICL: contrast of student embeddings with the teacher's other modality.

    If the widths differ, the student's embeddings are projected first. The scale is learned. The
    loss is not zero at a match. Samples whose ``is_pair`` is False are left out.
    """

    items = Items(paired=True)

    card = Card(
        "CLIP-KD: An Empirical Study of CLIP Model Distillation",
        "https://arxiv.org/abs/2307.12732",
        "CVPR",
        2024,
        source="relations",
        algorithms=("cross-modal", "contrastive"),
        tasks=("image_text",),
        couples=True,
        zero_at_match=False,
        published_weight=1.0,
        weight_setting="CLIP-KD, CC3M and CC12M",
        deviations="Option form: the code, which gave the published numbers, does not "
        "exponentiate the scale.",
        equation=r"-\frac{1}{2N} \sum_{i=1}^{N} \left[ \log \frac{e^{\gamma v^{s\top}_i "
        r"u^t_i}}{\sum_j e^{\gamma v^{s\top}_i u^t_j}} + \log \frac{e^{\gamma u^{s\top}_i "
        r"v^t_i}}{\sum_j e^{\gamma u^{s\top}_i v^t_j}} \right]",
        use="For a CLIP student that should live in the teacher's embedding space, in addition to "
        "its own contrastive loss: its embeddings are contrasted with the teacher's. A scale is "
        "learned, and a linear layer per embedding if the widths differ.",
        pitfalls="The loss depends on the batch, and its value does not measure the match: it is "
        "not zero there. In the code's form the scale starts at 2.66 instead of 14.3, and the "
        "softmax is nearly flat.",
    )

    def __init__(
        self,
        form: Annotated[
            Form,
            Doc(
                "paper: learns the logarithm of the scale, from log(1 / 0.07); "
                "code: multiplies by that learned value itself"
            ),
        ] = "code",
    ):
        super().__init__()
        require_form(form)
        self.form: Form = form

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """Build the projections and the scale."""
        super().build(student, teacher)
        self.scale = LearnedScale(self.form, student["image_embedding"])

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        return interactive_contrastive_loss(
            *self.projected(student), *unit_pair(teacher), self.scale()
        )
