"""Samples on which the teacher agrees with the label count more."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from instil.core import UNLABELLED, Batch, Card, NonNegative, Outputs, Weighting, to_float32


class Agreement(Weighting):
    """exp(-strength x the teacher's cross-entropy with the label): from 1, sure of it, towards 0, wrong; 1 without a label.

    After Ganguly et al. 2024, whose factor has another form.

    ``strength``: 0 weighs all samples alike; at 1 the factor is the teacher's probability of the label.
    """

    card = Card(
        "AdaKD: Dynamic Knowledge Distillation of ASR models using Adaptive Loss Weighting",
        "https://arxiv.org/abs/2405.08019",
        "Interspeech",
        2024,
        algorithms=("adaptive",),
        labels=("single",),
        deviations="The paper's factor is exp(-exp(k (L - m) / 2)), with L the teacher's loss, m its mean over the training set and k falling "
        "over the training, and the label loss gets what is left to 1; here the loss itself is the exponent. A schedule of strength moves it.",
        equation=r"w = e^{\lambda \log p^t_y} = (p^t_y)^\lambda",
        use="Multiplies any per-item objective where the teacher may be wrong on the training samples, or the labels noisy: samples on which the "
        "two disagree count less. It needs labels and the teacher's logits.",
        pitfalls="Weights are not normalized: they lower the loss by the teacher's mean probability of the label, so compare at a raised weight. "
        "Hard samples lose weight even where the teacher is right; a teacher that fits its training set gives 1 everywhere. It cannot weigh "
        "objectives that couple their batch.",
    )
    needs: ClassVar = {"student": (), "teacher": (("logits",),)}

    def __init__(self, strength: NonNegative = 1.0):
        super().__init__()
        self.strength = strength

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        label: Tensor = batch["label"]
        log_probability = (
            to_float32(teacher["logits"])
            .log_softmax(-1)
            .gather(-1, label.clamp_min(0).unsqueeze(-1))
            .squeeze(-1)
        )
        return torch.where(label == UNLABELLED, 1.0, (self.strength * log_probability).exp())
