"""Samples that teacher and student are unsure about count more."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from instil.core import Batch, Card, Outputs, Positive, Weighting, to_float32


def entropy(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Entropy in nats (...) of the softmax of logits (..., C) at a temperature; of one class, that of its sigmoid."""
    logits = to_float32(logits) / temperature
    logits = torch.cat([logits, torch.zeros_like(logits)], -1) if logits.shape[-1] == 1 else logits
    log_probability = logits.log_softmax(-1)
    return -(log_probability.exp() * log_probability).sum(-1).clamp_max(0)


class Entropy(Weighting):
    """Half of the teacher's entropy, and half of it again as far as the student is unsure: from 0 to log C (Su et al. 2025, Eq. 5 to 7).

    ``temperature``: of both entropies.
    ``prefer``: the unsure samples, as published; or the certain ones: 1 minus the teacher's share of log C.
    """

    card = Card(
        "EA-KD: Entropy-based Adaptive Knowledge Distillation",
        "https://arxiv.org/abs/2311.13621",
        "ICCV",
        2025,
        algorithms=("adaptive",),
        labels=("single", "binary"),
        deviations="The authors' code divides the student's entropy by log C on ImageNet, as here, but by C on CIFAR-100, which makes its part 22 "
        "times smaller there. Their prefer is unsure alone.",
        equation=r"w = \frac{1}{2} H(p^t_T) \Big( 1 + \frac{H(p^s_T)}{\log C} \Big), \quad H(p) = -\sum_{c=1}^{C} p_c \log p_c",
        use="Multiplies a per-item objective so that samples near a class boundary count more than those the teacher finds easy; published for "
        "kd, dkd and feature losses. It needs no labels and costs two entropies.",
        pitfalls="Weights go up to log C and are not normalized: with many classes the objective grows, and the published weights are for that "
        "size. Under a peaked teacher and at a low temperature nearly all weights vanish. Noisy and ambiguous samples have a high entropy too. It "
        "cannot weigh objectives that couple their batch.",
    )

    def __init__(
        self, temperature: Positive = 3.0, prefer: Literal["unsure", "certain"] = "unsure"
    ):
        super().__init__()
        self.temperature, self.prefer = temperature, prefer

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        most = math.log(max(2, teacher["logits"].shape[-1]))
        theirs = entropy(teacher["logits"], self.temperature)
        if self.prefer == "certain":
            return 1 - theirs / most
        return theirs * (1 + entropy(student["logits"], self.temperature) / most) / 2
