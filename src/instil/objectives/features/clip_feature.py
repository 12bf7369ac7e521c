"""The student's image and text embeddings are the teacher's."""

from __future__ import annotations

from torch import Tensor

from instil.core import Batch, Card, Outputs
from instil.functional.errors import squared_error
from instil.functional.feature_maps import require_same_shape
from instil.functional.logits import apply_reduction
from instil.objectives.bases.image_text_objective import ImageTextObjective, unit_pair


def clip_feature_loss(
    image: Tensor,
    text: Tensor,
    teacher_image: Tensor,
    teacher_text: Tensor,
    reduction: str = "mean",
) -> Tensor:
    """Squared difference of the images' and of the texts' unit embeddings (N, D), mean over their entries (Yang et al. 2024, Eq. 6)."""
    terms = []
    for side, mine, theirs in (("image", image, teacher_image), ("text", text, teacher_text)):
        mine, theirs = require_same_shape(mine, theirs, f"clip_feature_loss, {side}")
        terms.append(squared_error(mine, theirs))
    return apply_reduction(terms[0] + terms[1], reduction)


class CLIPFeature(ImageTextObjective):
    """CLIP-KD's feature distillation (FD): both unit embeddings regress the teacher's, projected first where the widths differ.

    The published weight is 2000.
    """

    card = Card(
        "CLIP-KD: An Empirical Study of CLIP Model Distillation",
        "https://arxiv.org/abs/2307.12732",
        "CVPR",
        2024,
        source="features",
        algorithms=("cross-modal",),
        tasks=("image_text",),
        equation=r"\frac{1}{D} \left( \lVert v^s - v^t \rVert_2^2 + \lVert u^s - u^t \rVert_2^2 \right), \quad v, u \text{ unit embeddings of "
        r"image and text}",
        use="Small CLIP models from a large one: the simplest of the paper's losses, which it finds to work surprisingly well. An item needs no "
        "others, so it works with small batches, beside the contrastive loss. At most two linear layers are added.",
        pitfalls="A squared distance is at most 4 and is divided by D, so that a weight near 1 hardly acts. The projection does not ship: a "
        "student of another width keeps a space of its own, in which the teacher's embeddings cannot be used.",
    )

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        return clip_feature_loss(*self.projected(student), *unit_pair(teacher), reduction="none")
