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
        equation=r"\frac{1}{2N} \sum_{i=1}^{N} \left[ \mathrm{KL}\left(p^t_{i\cdot} \Vert p^s_{i\cdot}\right) + \mathrm{KL}\left(q^t_{\cdot i} "
        r"\Vert q^s_{\cdot i}\right) \right], \quad p_{ij} = \frac{e^{\gamma v_i^\top u_j}}{\sum_k e^{\gamma v_i^\top u_k}}, \quad q_{ij} "
        r"= \frac{e^{\gamma v_i^\top u_j}}{\sum_k e^{\gamma v_k^\top u_j}}",
        use="Inside CLIP-KD's set of losses, beside the contrastive loss of the student; the same loss as affinity_mimicking, take one of the two.",
        pitfalls="It depends on the batch, as affinity_mimicking does. The paper's full recipe adds feature mimicry with weight 2000 and "
        "interactive_contrastive with weight 1, and finds feature mimicry the strongest single term.",
    )
