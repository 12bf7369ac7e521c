"""CLIP-KD's contrastive relational distillation is affinity mimicking."""

from __future__ import annotations

from instil.core import Card
from instil.objectives.relations.affinity_mimicking import AffinityMimicking


class ContrastiveRelation(AffinityMimicking):
    """CLIP-KD's CRD: contrastive distributions from image to text and from text to image agree. The published weight is 1."""

    card = Card(
        "CLIP-KD: An Empirical Study of CLIP Model Distillation",
        "https://arxiv.org/abs/2307.12732",
        "CVPR",
        2024,
        source="relations",
        algorithms=("cross-modal", "contrastive"),
        tasks=("image_text",),
        couples=True,
    )
