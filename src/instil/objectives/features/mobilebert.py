"""MobileBERT: layer-wise transfer of feature maps, their statistics and attentions."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, NonNegative, Outputs, check_bounds
from instil.functional.feature_maps import require_same_shape
from instil.functional.hidden_states import (
    Layers,
    layer_tensors,
    masked_mean,
    paired_attentions,
    replace_padded_queries,
    replace_padding,
    token_mask,
)
from instil.functional.logits import apply_reduction
from instil.objectives.bases.hidden_objective import HiddenObjective

NORM_EPSILON = 1e-12
"""Epsilon of the layer norm, as in BERT."""


@check_bounds
def mobilebert_feature_loss(
    student_features: Tensor,
    teacher_features: Tensor,
    feature: NonNegative = 100.0,
    mean: NonNegative = 5000.0,
    variance: NonNegative = 5.0,
    mask: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Feature map transfer loss (Sun et al. 2020).

    Differences of the layer-normalised hidden states, of their means and of their variances per
    token; mean over the tokens of a sample.

    Args:
        student_features: hidden states (N, L, D).
        teacher_features: hidden states (N, L, D).
        feature: weight of the mean squared difference of the normalised states.
        mean: weight of the squared difference of the means.
        variance: weight of the absolute difference of the variances.
        mask: (N, L), 1 for a token and 0 for padding; None: no padding.
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> mobilebert_feature_loss(torch.ones(1, 1, 2), torch.tensor([[[1.0, 0.0]]]))
        tensor(1351.2500)
    """
    student_features, teacher_features = require_same_shape(
        student_features, teacher_features, "mobilebert_feature_loss", 3
    )
    student_features = replace_padding(student_features, mask)
    teacher_features = replace_padding(teacher_features, mask)
    width = (student_features.shape[-1],)
    student_normed = F.layer_norm(student_features, width, eps=NORM_EPSILON)
    normed = student_normed - F.layer_norm(teacher_features, width, eps=NORM_EPSILON)
    means = student_features.mean(-1) - teacher_features.mean(-1)
    variances = student_features.var(-1, correction=0) - teacher_features.var(-1, correction=0)
    values = feature * normed.square().mean(-1) + mean * means.square() + variance * variances.abs()
    return apply_reduction(masked_mean(values, mask), reduction)


def mobilebert_attention_loss(
    student_attention: Tensor,
    teacher_attention: Tensor,
    mask: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """KL divergence of attention probabilities, ``KL(teacher || student)`` (Sun et al. 2020).

    The value is the mean over the heads and the queries of a sample.

    Args:
        student_attention: attention probabilities (N, heads, L, L).
        teacher_attention: attention probabilities (N, heads, L, L).
        mask: (N, L), 1 for a token and 0 for padding; None: no padding.
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> mobilebert_attention_loss(torch.full((1, 1, 2, 2), 0.5), torch.eye(2)[None, None])
        tensor(0.6931)
    """
    student_attention, teacher_attention = require_same_shape(
        student_attention, teacher_attention, "mobilebert_attention_loss", 4
    )
    student_attention = replace_padded_queries(student_attention, mask)
    teacher_attention = replace_padded_queries(teacher_attention, mask)
    # Attention to masked keys is 0, whose logarithm is -inf.
    smallest = torch.finfo(student_attention.dtype).tiny
    log_student = student_attention.clamp_min(smallest).log()
    log_ratio = log_student - teacher_attention.clamp_min(smallest).log()
    values = -(log_ratio * teacher_attention).sum(-1).mean(1)
    return apply_reduction(masked_mean(values, mask), reduction)


class MobileBERT(HiddenObjective):
    """Feature map and attention transfer of every layer, mean over the layers.

    For a student that is as deep and as wide as its teacher, with narrow layers inside.
    """

    card = Card(
        "MobileBERT: a compact task-agnostic BERT for resource-limited devices",
        "https://arxiv.org/abs/2004.02984",
        "ACL",
        2020,
        source="features",
        algorithms=("attention",),
        tasks=("text_classification", "classification"),
        deviations="The weights are those of the authors' command line. The attention term is a "
        "KL divergence; the code uses the cross-entropy. Padding is excluded; in the code it "
        "counts. The code's means are those of all teacher layers at once. Here they are those "
        "of each layer, as in its successor. Training layer by layer is done by stages with "
        "`layers`. A linear projection is used where the widths differ.",
        equation=r"\frac{1}{M} \sum_l \left[ \frac{1}{L} \sum_i \left( \frac{w_f}{D} \lVert "
        r"\mathrm{LN}(h^s_i) - \mathrm{LN}(h^t_i) \rVert_2^2 + w_\mu (\mu^s_i - \mu^t_i)^2 + w_v "
        r"|v^s_i - v^t_i| \right) + \frac{w_a}{A L} \sum_{a,i} \mathrm{KL}(A^t_{ai} \Vert "
        r"A^s_{ai}) \right]",
        use="Students that are as deep as the teacher and as wide between their layers, but thin "
        "inside. They are trained layer by layer before kd on the output. For fewer layers "
        "tinybert or minilm are better suited.",
        pitfalls="Both sides need the same heads and tokens, and must return attentions, which "
        "fused attention does not. These need memory of heads times tokens squared. The weights "
        "are those of pre-training: the weight of 5000 for the means dominates where the means "
        "differ.",
    )
    needs: ClassVar = dict.fromkeys(("student", "teacher"), (("hidden_states",), ("attentions",)))

    def __init__(
        self,
        feature: Annotated[
            NonNegative, Doc("weight of the squared difference of the normalised states")
        ] = 100.0,
        mean: Annotated[
            NonNegative, Doc("weight of the squared difference of the means of the states")
        ] = 5000.0,
        variance: Annotated[
            NonNegative, Doc("weight of the absolute difference of the variances of the states")
        ] = 5.0,
        attention: Annotated[
            NonNegative, Doc("weight of the KL divergence of the attentions")
        ] = 1.0,
        layers: Annotated[
            Layers,
            Doc(
                "uniform: student layers spread over the teacher's; last: the last layers; or "
                "[[student layer, teacher layer], ...], 0 for the embedding output"
            ),
        ] = "uniform",
    ):
        super().__init__(layers)
        self.feature = feature
        self.mean = mean
        self.variance = variance
        self.attention = attention

    def build(self, student_outputs: Outputs, teacher_outputs: Outputs) -> None:
        super().build(student_outputs, teacher_outputs)
        # Raises the error of missing or different attentions before training starts.
        paired_attentions(student_outputs, teacher_outputs, self.matched)

    def forward(self, student_outputs: Outputs, teacher_outputs: Outputs, batch: Batch) -> Tensor:
        mask = token_mask(batch, layer_tensors(student_outputs, "hidden_states")[-1])
        weights = self.feature, self.mean, self.variance
        terms = []
        for student, teacher in self.matched_pairs(student_outputs, teacher_outputs, mask):
            terms.append(mobilebert_feature_loss(student, teacher, *weights, mask, "none"))
        for student, teacher in paired_attentions(student_outputs, teacher_outputs, self.matched):
            loss = mobilebert_attention_loss(student, teacher, mask, "none")
            terms.append(self.attention * loss)
        return torch.stack(terms).sum(0) / len(self.matched)
