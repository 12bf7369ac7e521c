"""MobileBERT: layer by layer the student's normalised feature maps, their means and variances, and its attentions near the teacher's."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from instil.core import Batch, Card, NonNegative, Outputs
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


def mobilebert_feature_loss(
    student: Tensor,
    teacher: Tensor,
    feature: float = 100.0,
    mean: float = 5000.0,
    variance: float = 5.0,
    mask: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Feature map transfer of hidden states (N, L, D), taken apart into what is normalised and its statistics (Sun et al. 2020).

    Per token ``feature`` times the mean squared difference of the states after a layer norm, ``mean`` times the squared difference of their means
    and ``variance`` times the absolute difference of their variances; mean over a sample's tokens. Raises ValueError where the shapes differ.
    """
    student, teacher = require_same_shape(student, teacher, "mobilebert_feature_loss")
    student, teacher = replace_padding(student, mask), replace_padding(teacher, mask)
    width = (student.shape[-1],)
    normed = F.layer_norm(student, width, eps=NORM_EPSILON) - F.layer_norm(
        teacher, width, eps=NORM_EPSILON
    )
    means = student.mean(-1) - teacher.mean(-1)
    variances = student.var(-1, correction=0) - teacher.var(-1, correction=0)
    values = feature * normed.square().mean(-1) + mean * means.square() + variance * variances.abs()
    return apply_reduction(masked_mean(values, mask), reduction)


def mobilebert_attention_loss(
    student: Tensor, teacher: Tensor, mask: Tensor | None = None, reduction: str = "mean"
) -> Tensor:
    """KL(teacher || student) of attention probabilities (N, heads, L, L), mean over heads and a sample's queries (Sun et al. 2020).

    ``mask`` (N, L): 1 for a token, 0 for padding. Raises ValueError where the shapes differ.
    """
    student, teacher = require_same_shape(student, teacher, "mobilebert_attention_loss")
    student, teacher = (replace_padded_queries(side, mask) for side in (student, teacher))
    smallest = torch.finfo(student.dtype).tiny
    apart = student.clamp_min(smallest).log() - teacher.clamp_min(smallest).log()
    return apply_reduction(masked_mean(-(apart * teacher).sum(-1).mean(1), mask), reduction)


class MobileBERT(HiddenObjective):
    """Feature map and attention transfer of every layer, mean over the layers; for a student as deep and as wide as its teacher, made narrow inside.

    ``feature``: weight of the normalised states.
    ``mean``: weight of the squared difference of their means.
    ``variance``: weight of the absolute difference of their variances.
    ``attention``: weight of the attentions.
    """

    card = Card(
        "MobileBERT: a compact task-agnostic BERT for resource-limited devices",
        "https://arxiv.org/abs/2004.02984",
        "ACL",
        2020,
        source="features",
        algorithms=("attention",),
        tasks=("text_classification", "classification"),
        deviations="weights of the authors' command line; a true KL where the code has the cross-entropy; padding does not count, which in the "
        "code it does; the code's means are those of all teacher layers at once, ours of the layer, as in its successor; training layer by "
        "layer is stages with `layers`; a linear projection where the widths differ",
        equation=r"\frac{1}{M} \sum_l \left[ \frac{1}{L} \sum_i \left( \frac{w_f}{D} \lVert \mathrm{LN}(h^s_i) - \mathrm{LN}(h^t_i) \rVert_2^2 + "
        r"w_\mu (\mu^s_i - \mu^t_i)^2 + w_v |v^s_i - v^t_i| \right) + \frac{w_a}{A L} \sum_{a,i} \mathrm{KL}(A^t_{ai} \Vert A^s_{ai}) \right]",
        use="Students as deep as the teacher and as wide between their layers, thin inside, trained layer by layer before kd on the answer. For "
        "fewer layers tinybert or minilm fit better.",
        pitfalls="Both sides must have the same heads and tokens, and must return attentions, which fused attention does not; these need memory of "
        "heads times tokens squared. The weights are those of pre-training: the means' 5000 rules where they differ.",
    )
    needs: ClassVar = dict.fromkeys(("student", "teacher"), (("hidden_states",), ("attentions",)))

    def __init__(
        self,
        feature: NonNegative = 100.0,
        mean: NonNegative = 5000.0,
        variance: NonNegative = 5.0,
        attention: NonNegative = 1.0,
        layers: Layers = "uniform",
    ):
        super().__init__(layers)
        self.feature, self.mean, self.variance, self.attention = feature, mean, variance, attention

    def build(self, student: Outputs, teacher: Outputs) -> None:
        super().build(student, teacher)
        paired_attentions(student, teacher, self.matched)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        mask = token_mask(batch, layer_tensors(student, "hidden_states")[-1])
        weights = self.feature, self.mean, self.variance
        terms = [
            mobilebert_feature_loss(mine, theirs, *weights, mask, "none")
            for mine, theirs in self.matched_pairs(student, teacher, mask)
        ]
        for mine, theirs in paired_attentions(student, teacher, self.matched):
            terms.append(self.attention * mobilebert_attention_loss(mine, theirs, mask, "none"))
        return torch.stack(terms).sum(0) / len(self.matched)
