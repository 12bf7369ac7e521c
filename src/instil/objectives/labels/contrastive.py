"""Contrastive label loss of image-text or text-text pairs."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from instil.core import Batch, Card, Objective, Outputs, to_float32
from instil.items import Items


def contrastive_loss(
    image_embedding: Tensor,
    text_embedding: Tensor,
    logit_scale: Tensor | float = 1 / 0.07,
) -> Tensor:
    """Symmetric contrastive loss of N pairs (Radford et al. 2021, section 2.3, figure 3).

    Mean of two cross-entropies: of each image over all texts, and of each text over all images.
    The logits are ``logit_scale`` times the cosine similarities.

    Args:
        image_embedding: (N, D), of any length.
        text_embedding: (N, D), of any length; row n belongs to image n.
        logit_scale: factor of the cosine similarities, after the exponential. A number or (1,).

    Returns:
        Scalar, 0 for one pair.

    Raises:
        ValueError: if the shapes differ or are not (N, D).

    Example:
        >>> import torch
        >>> contrastive_loss(torch.eye(2), torch.eye(2), logit_scale=1.0)
        tensor(0.3133)
    """
    shapes = image_embedding.shape, text_embedding.shape
    if shapes[0] != shapes[1] or len(shapes[0]) != 2:
        raise ValueError(
            "image_embedding, text_embedding: the shapes do not fit. Expected (N, D) for both, "
            f"got {tuple(shapes[0])} and {tuple(shapes[1])}."
        )
    scale = (
        to_float32(logit_scale).reshape(-1)[:1] if isinstance(logit_scale, Tensor) else logit_scale
    )
    image_direction = F.normalize(to_float32(image_embedding), dim=1)
    text_direction = F.normalize(to_float32(text_embedding), dim=1)
    logits = scale * image_direction @ text_direction.T
    pair_index = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, pair_index) + F.cross_entropy(logits.T, pair_index)) / 2


class Contrastive(Objective):
    """Contrastive loss of the student's image and text embeddings; the pairs are the labels.

    Samples whose ``is_pair`` is False are left out: their image and text do not belong together.

    Reads ``image_embedding`` (N, D), ``text_embedding`` (N, D) and ``logit_scale`` (1,), or
    ``sentence_embedding`` and ``partner_embedding`` for pairs of texts. The loss of one pair is 0.
    """

    card = Card(
        "Learning Transferable Visual Models From Natural Language Supervision",
        "https://arxiv.org/abs/2103.00020",
        "ICML",
        2021,
        source="labels",
        algorithms=("contrastive", "cross-modal"),
        tasks=("image_text", "sentence_embedding"),
        couples=True,
        zero_at_match=False,
        equation=r"\frac{1}{2N} \sum_{n=1}^{N} \Big( -\log \frac{e^{s \cos(u_n, v_n)}}{\sum_m e^{s "
        r"\cos(u_n, v_m)}} - \log \frac{e^{s \cos(u_n, v_n)}}{\sum_m e^{s \cos(u_m, v_n)}} \Big), "
        r"\quad u \text{ images}, v \text{ texts}, s \text{ the scale}",
        use="The label loss of image-text training: combined with a distillation loss, or alone as "
        "its baseline. It uses no class labels. The other pairs of the batch are the negatives, so "
        "it costs an N x N table and benefits from large batches.",
        pitfalls="Two pairs with the same meaning are pushed apart if they are in one batch. The "
        "loss grows with the batch size (about log N at the start). The weights of a recipe do not "
        "transfer to another batch size. The paper limits the learned scale to 100; this loss does "
        "not.",
    )
    items = Items(paired=True)
    needs: ClassVar = {
        "student": (
            ("image_embedding", "sentence_embedding"),
            ("text_embedding", "partner_embedding"),
            ("logit_scale",),
        ),
        "teacher": (),
    }

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        return contrastive_loss(*(student[role] for role in self.reads["student"]))
