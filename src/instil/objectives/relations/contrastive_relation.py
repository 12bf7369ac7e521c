"""Contrastive relational distillation of CLIP-KD, which equals affinity mimicking."""

from __future__ import annotations

from instil.core import Card
from instil.objectives.relations.affinity_mimicking import AffinityMimicking


class ContrastiveRelation(AffinityMimicking):
    """CLIP-KD's CRD: agreement of the image-to-text and text-to-image distributions.

    The published weight is 1.
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
        published_weight=1.0,
        weight_setting="CLIP-KD, CC3M and CC12M, with interactive_contrastive of weight 1 and "
        "clip_feature of weight 2000",
        equation=r"\frac{1}{2N} \sum_{i=1}^{N} \left[ \mathrm{KL}\left(p^t_{i\cdot} \Vert "
        r"p^s_{i\cdot}\right) + \mathrm{KL}\left(q^t_{\cdot i} \Vert q^s_{\cdot i}\right) "
        r"\right], \quad p_{ij} = \frac{e^{\gamma v_i^\top u_j}}{\sum_k e^{\gamma v_i^\top u_k}}, "
        r"\quad q_{ij} = \frac{e^{\gamma v_i^\top u_j}}{\sum_k e^{\gamma v_k^\top u_j}}",
        use="Inside CLIP-KD's set of losses, together with the student's contrastive loss. It is "
        "the same loss as affinity_mimicking: use one of the two.",
        pitfalls="The loss depends on the batch, like affinity_mimicking. Feature mimicry "
        "(clip_feature) is the strongest single term in the paper.",
    )
