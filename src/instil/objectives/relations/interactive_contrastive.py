"""Interactive contrastive learning: a student image finds the teacher's embedding of its text, and a student text that of its image."""

from __future__ import annotations

from torch import Tensor

from instil.core import Batch, Card, Outputs
from instil.functional.contrastive import contrastive
from instil.functional.similarities import scaled_similarities
from instil.modules.learned_scale import Form, LearnedScale, require_form
from instil.objectives.bases.image_text_objective import ImageTextObjective, unit_pair


def interactive_contrastive_loss(
    image: Tensor, text: Tensor, teacher_image: Tensor, teacher_text: Tensor, scale: Tensor | float
) -> Tensor:
    """Mean of the contrastive losses of student images with teacher texts and of student texts with teacher images; a scalar.

    Unit embeddings (N, D) of one width, similarities times ``scale`` (Yang et al. 2024).
    """
    return (
        contrastive(scaled_similarities(image, teacher_text, scale))
        + contrastive(scaled_similarities(text, teacher_image, scale))
    ) / 2


class InteractiveContrastive(ImageTextObjective):
    """CLIP-KD's ICL: the student's embeddings are contrasted with the teacher's of the other modality. At a match it is not zero.

    The student's embeddings are projected first where the widths differ; the scale is learned.

    ``form``: paper learns the logarithm of the scale, from log(1 / 0.07); the authors' code multiplies with that number itself.
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
        zero_at_match=False,
        deviations="form: the code, which gave the published numbers, does not exponentiate the scale",
        equation=r"-\frac{1}{2N} \sum_{i=1}^{N} \left[ \log \frac{e^{\gamma v^{s\top}_i u^t_i}}{\sum_j e^{\gamma v^{s\top}_i u^t_j}} + \log "
        r"\frac{e^{\gamma u^{s\top}_i v^t_i}}{\sum_j e^{\gamma u^{s\top}_i v^t_j}} \right]",
        use="For a CLIP student that should live in the teacher's embedding space, beside its own contrastive loss: its embeddings are "
        "contrasted with the teacher's. A scale is learned, and a linear layer an embedding where the widths differ.",
        pitfalls="The published weight is 1. It depends on the batch, and its value says nothing of the match: it is not zero there. In the code's "
        "form the scale starts at 2.66, not at 14.3, and the softmax is nearly flat.",
    )

    def __init__(self, form: Form = "code"):
        super().__init__()
        require_form(form)
        self.form: Form = form

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """The projections and the scale."""
        super().build(student, teacher)
        self.scale = LearnedScale(self.form, student["image_embedding"])

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        return interactive_contrastive_loss(
            *self.projected(student), *unit_pair(teacher), self.scale()
        )
