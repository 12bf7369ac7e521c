"""TinyBERT: attentions, hidden states and embeddings of the student near those of the teacher's layers that its own stand for."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from instil.core import Batch, Card, NonNegative, Outputs, every_item_counts
from instil.functional.errors import sample_mean
from instil.functional.feature_maps import require_same_shape
from instil.functional.hidden_states import (
    Layers,
    layer_map,
    layer_tensors,
    masked_mean,
    paired_attentions,
    replace_padding,
    token_mask,
)
from instil.functional.logits import apply_reduction
from instil.objectives.bases.hidden_objective import HiddenObjective

MASKED_SCORE = -100.0


def tinybert_hidden_loss(
    student: Tensor, teacher: Tensor, mask: Tensor | None = None, reduction: str = "mean"
) -> Tensor:
    """Mean squared difference of hidden states (N, L, D) over the width and the tokens of a sample (Jiao et al. 2020, Eq. 8 and 9).

    ``mask`` (N, L): 1 for a token, 0 for padding; none in the authors' code. Raises ValueError where the shapes differ.
    """
    student, teacher = require_same_shape(student, teacher, "tinybert_hidden_loss")
    student, teacher = replace_padding(student, mask), replace_padding(teacher, mask)
    return apply_reduction(
        masked_mean(
            F.mse_loss(student, teacher, reduction="none").sum(-1) / max(1, student.shape[-1]), mask
        ),
        reduction,
    )


def tinybert_attention_loss(
    student: Tensor, teacher: Tensor, mask: Tensor | None = None, reduction: str = "mean"
) -> Tensor:
    """Mean squared difference of attentions (N, heads, L, L), probabilities or raw scores, over heads and pairs of tokens (Jiao et al. 2020, Eq. 7).

    A raw score at or below -100 is that of a masked key and taken as 0. ``mask`` (N, L): 1 for a token, 0 for padding.
    Raises ValueError where the shapes differ.
    """
    student, teacher = require_same_shape(student, teacher, "tinybert_attention_loss")
    student, teacher = (_without_padding(side, mask) for side in (student, teacher))
    student, teacher = (F.threshold(side, MASKED_SCORE, 0.0) for side in (student, teacher))
    squares = F.mse_loss(student, teacher, reduction="none").sum(1) / max(1, student.shape[1])
    if mask is not None:
        pairs = mask[:, :, None] * mask[:, None]
        return apply_reduction(masked_mean(squares.flatten(1), pairs.flatten(1)), reduction)
    return apply_reduction(sample_mean(squares), reduction)


def _without_padding(attentions: Tensor, mask: Tensor | None) -> Tensor:
    """Attentions (N, heads, L, L) with zeros where query or key is padding."""
    if mask is None or every_item_counts(mask > 0):
        return attentions
    padding = mask == 0
    return attentions.masked_fill((padding[:, :, None] | padding[:, None])[:, None], 0.0)


class TinyBERT(HiddenObjective):
    """The embedding output and every layer's attentions and hidden states, summed over the pairs, mean over a sample's tokens.

    All layers share one projection to the teacher's width; none where the widths agree. The prediction layer is ``kd`` at temperature 1.

    ``attention``: weight of the attentions beside the hidden states; 0 leaves them out.
    """

    card = Card(
        "TinyBERT: distilling BERT for natural language understanding",
        "https://arxiv.org/abs/1909.10351",
        "Findings of EMNLP",
        2020,
        source="features",
        algorithms=("attention",),
        tasks=("text_classification", "classification"),
        deviations="padding does not count, in the code it does; transformers' attentions are probabilities where code and paper have raw scores "
        "(tap these as `attentions` for the paper's form); the code projects also where the widths agree; "
        "its prediction loss is a cross-entropy and a mean over the classes, kd at weight 1 / classes",
        equation=r"\sum_m \left[ \frac{1}{L D} \lVert h^s_m W - h^t_{g(m)} \rVert_F^2 + \frac{\lambda}{A L^2} \sum_a \lVert A^s_{ma} - A^t_{g(m)a} "
        r"\rVert_F^2 \right]",
        use="Transformers with fewer and narrower layers than their teacher. It is the first of two stages and needs no labels, on general and "
        "then on augmented task data; the second is kd on the answer. The projection is one matrix.",
        pitfalls="Heads and tokens must be the teacher's, and attentions must be returned, which fused attention does not. Attention probabilities "
        "differ far less than the paper's raw scores, so that they count little at the default weight.",
    )
    needs: ClassVar = dict.fromkeys(("student", "teacher"), (("hidden_states",), ("attentions",)))
    shares = True

    def __init__(self, attention: NonNegative = 1.0, layers: Layers = "uniform"):
        super().__init__(layers)
        self.attention = attention

    def choose(self, student: int, teacher: int) -> list[tuple[int, int]]:
        found = layer_map(self.layers, student, teacher, first=0)
        return [(0, 0), *found] if self.layers == "uniform" else found

    def build(self, student: Outputs, teacher: Outputs) -> None:
        super().build(student, teacher)
        paired_attentions(student, teacher, self.matched)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        mask = token_mask(batch, layer_tensors(student, "hidden_states")[-1])
        terms = [
            tinybert_hidden_loss(mine, theirs, mask, "none")
            for mine, theirs in self.matched_pairs(student, teacher, mask)
        ]
        for mine, theirs in paired_attentions(student, teacher, self.matched):
            terms.append(self.attention * tinybert_attention_loss(mine, theirs, mask, "none"))
        return torch.stack(terms).sum(0)
