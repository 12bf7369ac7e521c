"""TinyBERT: attentions, hidden states and embeddings match those of mapped teacher layers."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, NonNegative, Outputs
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
from instil.items import every_item_counts
from instil.objectives.bases.hidden_objective import HiddenObjective

MASKED_SCORE = -100.0
"""Raw attention score up to which a key is masked."""


def tinybert_hidden_loss(
    student_states: Tensor,
    teacher_states: Tensor,
    mask: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """TinyBERT loss of hidden states or embeddings (Jiao et al. 2020, Eq. 8 and 9).

    Mean squared difference over the width and the tokens of a sample.

    Args:
        student_states: hidden states (N, L, D).
        teacher_states: hidden states (N, L, D).
        mask: (N, L), 1 for a token, 0 for padding. None: all count, as in the authors' code.
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> states = torch.zeros(1, 2, 2), torch.tensor([[[1.0, 2.0], [9.0, 9.0]]])
        >>> tinybert_hidden_loss(*states, mask=torch.tensor([[1, 0]]))
        tensor(2.5000)
    """
    student_states, teacher_states = require_same_shape(
        student_states, teacher_states, "tinybert_hidden_loss", 3
    )
    # Padding may hold NaN, so it is replaced before the arithmetic, not only masked afterwards.
    student_states = replace_padding(student_states, mask)
    teacher_states = replace_padding(teacher_states, mask)
    squares = F.mse_loss(student_states, teacher_states, reduction="none").sum(-1)
    return apply_reduction(masked_mean(squares / max(1, student_states.shape[-1]), mask), reduction)


def tinybert_attention_loss(
    student_attention: Tensor,
    teacher_attention: Tensor,
    mask: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """TinyBERT loss of attentions (Jiao et al. 2020, Eq. 7).

    Mean squared difference over the heads and the pairs of tokens. A raw score of -100 or less
    belongs to a masked key and counts as 0.

    Args:
        student_attention: probabilities or raw scores (N, heads, L, L).
        teacher_attention: probabilities or raw scores (N, heads, L, L).
        mask: (N, L), 1 for a token, 0 for padding. None: all count.
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> tinybert_attention_loss(torch.full((1, 1, 2, 2), 0.5), torch.eye(2)[None, None])
        tensor(0.2500)
    """
    student_attention, teacher_attention = require_same_shape(
        student_attention, teacher_attention, "tinybert_attention_loss", 4
    )
    student_attention = _without_padding(student_attention, mask)
    teacher_attention = _without_padding(teacher_attention, mask)
    student_attention = F.threshold(student_attention, MASKED_SCORE, 0.0)
    teacher_attention = F.threshold(teacher_attention, MASKED_SCORE, 0.0)
    squares = F.mse_loss(student_attention, teacher_attention, reduction="none").sum(1)
    squares = squares / max(1, student_attention.shape[1])
    if mask is None:
        return apply_reduction(sample_mean(squares), reduction)
    pairs = mask[:, :, None] * mask[:, None]
    return apply_reduction(masked_mean(squares.flatten(1), pairs.flatten(1)), reduction)


def _without_padding(attention: Tensor, mask: Tensor | None) -> Tensor:
    """Attention (N, heads, L, L) with zeros where query or key is padding."""
    if mask is None or every_item_counts(mask > 0):
        return attention
    padding = mask == 0
    return attention.masked_fill((padding[:, :, None] | padding[:, None])[:, None], 0.0)


class TinyBERT(HiddenObjective):
    """Match of embeddings, hidden states and attentions of the paired layers; sum over the pairs.

    All layers share one projection to the teacher's width, none if the widths agree. For the
    prediction layer add ``kd`` at temperature 1.
    """

    card = Card(
        "TinyBERT: distilling BERT for natural language understanding",
        "https://arxiv.org/abs/1909.10351",
        "Findings of EMNLP",
        2020,
        source="features",
        algorithms=("attention",),
        tasks=("text_classification", "classification"),
        deviations="Padding does not count; in the code it does. The attentions of transformers "
        "are probabilities, code and paper use raw scores; tap these as `attentions` for the form "
        "of the paper. The code also projects if the widths agree. Its prediction loss is a "
        "cross-entropy and a mean over the classes: kd at weight 1 / classes.",
        equation=r"\sum_m \left[ \frac{1}{L D} \lVert h^s_m W - h^t_{g(m)} \rVert_F^2 + "
        r"\frac{\lambda}{A L^2} \sum_a \lVert A^s_{ma} - A^t_{g(m)a} \rVert_F^2 \right]",
        use="For transformers with fewer and narrower layers than their teacher. It is the first "
        "of two stages and needs no labels, on general and then on augmented task data; the "
        "second stage is kd on the predictions. The projection is one matrix.",
        pitfalls="The student must have the teacher's heads and tokens. The networks must return "
        "attentions, which fused attention does not. Attention probabilities differ far less than "
        "the paper's raw scores, so they count little at the default weight.",
    )
    needs: ClassVar = dict.fromkeys(("student", "teacher"), (("hidden_states",), ("attentions",)))
    shares = True

    def __init__(
        self,
        attention: Annotated[
            NonNegative,
            Doc("weight of the attentions relative to the hidden states; 0: no attentions"),
        ] = 1.0,
        layers: Annotated[
            Layers,
            Doc(
                "pairs [[student layer, teacher layer], ...]; the first layer is 1, the embedding "
                "output 0. uniform: student layers spread over the teacher's, and the embeddings; "
                "last: the last layers"
            ),
        ] = "uniform",
    ):
        super().__init__(layers)
        self.attention = attention

    def choose(self, num_student_layers: int, num_teacher_layers: int) -> list[tuple[int, int]]:
        """Pairs (student layer, teacher layer), with the embeddings for ``layers: uniform``."""
        matched = layer_map(self.layers, num_student_layers, num_teacher_layers, first=0)
        return [(0, 0), *matched] if self.layers == "uniform" else matched

    def build(self, student: Outputs, teacher: Outputs) -> None:
        super().build(student, teacher)
        # Attentions that do not fit raise their error here, before training starts.
        paired_attentions(student, teacher, self.matched)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        mask = token_mask(batch, layer_tensors(student, "hidden_states")[-1])
        terms = []
        for student_states, teacher_states in self.matched_pairs(student, teacher, mask):
            terms.append(tinybert_hidden_loss(student_states, teacher_states, mask, "none"))
        for student_attention, teacher_attention in paired_attentions(
            student, teacher, self.matched
        ):
            values = tinybert_attention_loss(student_attention, teacher_attention, mask, "none")
            terms.append(self.attention * values)
        return torch.stack(terms).sum(0)
