"""An image and its own text are drawn together, apart from all others in the batch."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from instil.core import Batch, Card, Objective, Outputs, full


def contrastive_loss(image: Tensor, text: Tensor, logit_scale: Tensor | float = 1 / 0.07) -> Tensor:
    """Mean of two cross-entropies over N pairs: of each image among all texts and of each text among all images (CLIP, section 2.3, figure 3).

    ``image`` and ``text`` are (N, D) of any length; logits are ``logit_scale`` (exponentiated) times their cosines. A scalar, 0 for one pair.
    Raises ValueError where the shapes differ.
    """
    if image.shape != text.shape or image.ndim != 2:
        raise ValueError(
            f"image and text embeddings must be (N, D) alike, not {tuple(image.shape)} and {tuple(text.shape)}"
        )
    scale = full(logit_scale).reshape(-1)[:1] if isinstance(logit_scale, Tensor) else logit_scale
    logits = scale * F.normalize(full(image), dim=1) @ F.normalize(full(text), dim=1).T
    own = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


class Contrastive(Objective):
    """The student's image_embedding (N, D) against its text_embedding (N, D), with its logit_scale (1,): the pairs are the labels.

    Of pairs of texts, sentence_embedding and partner_embedding.

    Zero for one pair alone.
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
        equation=r"\frac{1}{2N} \sum_{n=1}^{N} \Big( -\log \frac{e^{s \cos(u_n, v_n)}}{\sum_m e^{s \cos(u_n, v_m)}} - \log \frac{e^{s \cos(u_n, "
        r"v_n)}}{\sum_m e^{s \cos(u_m, v_n)}} \Big), \quad u \text{ images}, v \text{ texts}, s \text{ the scale}",
        use="The label loss of training on images with their texts: beside a distillation loss for such a student, or alone as its baseline. No "
        "class labels are read; the other pairs of the batch are the negatives, so it costs an N x N table and gains from large batches.",
        pitfalls="Two pairs that mean the same are pushed apart when they meet in a batch. The loss grows with the batch (about log N at the "
        "start), so a weight beside it does not carry over to another batch size. The paper keeps the learned scale at 100 or less; this loss "
        "does not.",
    )
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
