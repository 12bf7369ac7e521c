"""DistilBERT: cosine distance of the last hidden states."""

from __future__ import annotations

from typing import Annotated

import torch.nn.functional as F
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, Outputs
from instil.functional.feature_maps import require_same_shape
from instil.functional.hidden_states import Layers, masked_mean, replace_padding, token_mask
from instil.functional.logits import apply_reduction
from instil.objectives.bases.hidden_objective import HiddenObjective


def distilbert_loss(
    student_features: Tensor,
    teacher_features: Tensor,
    mask: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Cosine distance of the hidden states of each token (Sanh et al. 2019, section 2).

    Args:
        student_features: hidden states (N, L, D).
        teacher_features: hidden states (N, L, D).
        mask: (N, L), 1 for a token and 0 for padding; None: no padding.
        reduction: ``"mean"`` over all tokens of the batch, or ``"none"`` (the mean over the tokens
            of each sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> distilbert_loss(torch.ones(1, 2, 2), torch.eye(2)[None])
        tensor(0.2929)
    """
    student_features, teacher_features = require_same_shape(
        student_features, teacher_features, "distilbert_loss", 3
    )
    student_features = replace_padding(student_features, mask)
    teacher_features = replace_padding(teacher_features, mask)
    values = 1 - F.cosine_similarity(student_features, teacher_features, dim=-1)
    if mask is None or reduction != "mean":
        return apply_reduction(masked_mean(values, mask), reduction)
    # As one long sample, so that each token of the batch has the same weight.
    return masked_mean(values.flatten()[None], mask.flatten()[None])[0]


class DistilBERT(HiddenObjective):
    """Cosine distance of the last hidden states, mean over all tokens of the batch.

    The paper's triple loss is this loss with weight 1, ``kd`` with weight 5 (temperature 2) and the
    loss of the masked language model with weight 2.
    """

    card = Card(
        "DistilBERT, a distilled version of BERT",
        "https://arxiv.org/abs/1910.01108",
        "NeurIPS Workshop",
        2019,
        source="features",
        tasks=("text_classification", "classification"),
        published_weight=0.5,
        weight_setting="the authors' code, DistilBERT, pre-training: 1, with 2 for the masked "
        "tokens and 5 for kd",
        deviations="A linear projection is used where the widths differ; the paper requires equal "
        "widths.",
        equation=r"\frac{1}{L} \sum_{i=1}^{L} \left( 1 - \cos(h^s_i, h^t_i) \right)",
        use="In addition to kd and the loss of the language model, for a transformer with the "
        "teacher's tokenizer. The paper's student has the teacher's width and half of its layers, "
        "which initialise it. With equal widths there are no new parameters.",
        pitfalls="It transfers directions, not lengths. Both sides need the same tokens, and "
        "attention_mask or valid must mark the padding. Long samples have larger weights than "
        "short ones.",
    )

    def __init__(
        self,
        layers: Annotated[
            Layers,
            Doc(
                "last: the last layers; uniform: student layers spread over the teacher's; or "
                "[[student layer, teacher layer], ...], 0 for the embedding output"
            ),
        ] = "last",
    ):
        super().__init__(layers)

    def weight(self, batch: Batch) -> Tensor:
        """Return the number of tokens per sample, or 1 if the batch has no mask."""
        weight = super().weight(batch)
        mask = batch.get("attention_mask", batch.get("valid"))
        if mask is None or mask.ndim != 2:
            return weight
        counted = token_mask(batch, mask)
        assert counted is not None
        return weight * counted.sum(1)

    def forward(self, student_outputs: Outputs, teacher_outputs: Outputs, batch: Batch) -> Tensor:
        mask = token_mask(batch, student_outputs["hidden_states"][-1])
        terms = [
            distilbert_loss(student_states, teacher_states, mask, "none")
            for student_states, teacher_states in self.matched_pairs(
                student_outputs, teacher_outputs, mask
            )
        ]
        total: Tensor = sum(terms[1:], terms[0])
        return total
