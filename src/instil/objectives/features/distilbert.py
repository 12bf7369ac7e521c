"""DistilBERT: the student's last hidden states point where the teacher's do."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from instil.core import Batch, Card, Outputs
from instil.functional.feature_maps import require_same_shape
from instil.functional.hidden_states import Layers, masked_mean, replace_padding, token_mask
from instil.functional.logits import apply_reduction
from instil.objectives.bases.hidden_objective import HiddenObjective


def distilbert_loss(
    student: Tensor, teacher: Tensor, mask: Tensor | None = None, reduction: str = "mean"
) -> Tensor:
    """One minus the cosine of each token's hidden states (N, L, D) (Sanh et al. 2019, section 2).

    ``mask`` (N, L): 1 for a token, 0 for padding. Mean over all tokens; with ``reduction="none"`` one value a sample, the mean over its tokens.
    Raises ValueError where the shapes differ.
    """
    student, teacher = require_same_shape(student, teacher, "distilbert_loss")
    student, teacher = replace_padding(student, mask), replace_padding(teacher, mask)
    values = 1 - F.cosine_similarity(student, teacher, dim=-1)
    if mask is None or reduction != "mean":
        return apply_reduction(masked_mean(values, mask), reduction)
    return masked_mean(values.flatten()[None], mask.flatten()[None])[0]


class DistilBERT(HiddenObjective):
    """Cosine distance of the last hidden states, mean over all tokens of the batch: a sample counts as often as it has tokens.

    The paper's triple loss is this at weight 1 with ``kd`` at weight 5 (temperature 2) and the masked language model's loss at weight 2.
    """

    card = Card(
        "DistilBERT, a distilled version of BERT",
        "https://arxiv.org/abs/1910.01108",
        "NeurIPS Workshop",
        2019,
        source="features",
        tasks=("text_classification", "classification"),
        deviations="a linear projection where the widths differ, which the paper excludes",
        equation=r"\frac{1}{L} \sum_{i=1}^{L} \left( 1 - \cos(h^s_i, h^t_i) \right)",
        use="Beside kd and the language model's own loss, for a transformer with the teacher's tokenizer; the paper's has the teacher's width, "
        "half of its layers, and is initialised from them. It adds nothing to train where the widths agree.",
        pitfalls="Directions are taught, lengths are not. Both sides must see the same tokens, and attention_mask or valid must mark the padding. "
        "Long samples count more than short ones.",
    )

    def __init__(self, layers: Layers = "last"):
        super().__init__(layers)

    def weight(self, batch: Batch) -> Tensor:
        """The tokens of each sample; 1 where the batch has no mask, as all are then of one length."""
        weight = super().weight(batch)
        mask = batch.get("attention_mask", batch.get("valid"))
        if mask is None or mask.ndim != 2:
            return weight
        counted = token_mask(batch, mask)
        assert counted is not None
        return weight * counted.sum(1)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        mask = token_mask(batch, student["hidden_states"][-1])
        terms = [
            distilbert_loss(mine, theirs, mask, "none")
            for mine, theirs in self.matched_pairs(student, teacher, mask)
        ]
        total: Tensor = sum(terms[1:], terms[0])
        return total
