"""Samples on which the teacher agrees with the label count more."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from instil.core import UNLABELLED, Batch, Card, NonNegative, Outputs, Weighting, full


class Agreement(Weighting):
    """exp(-strength x the teacher's cross-entropy with the label): from 1, sure of it, towards 0, wrong (Ganguly et al. 2024); 1 without a label.

    ``strength``: 0 weighs all samples alike; at 1 the factor is the teacher's probability of the label.
    """

    card = Card(
        "AdaKD: Dynamic Knowledge Distillation of ASR models using Adaptive Loss Weighting",
        "https://arxiv.org/abs/2405.08019",
        "Interspeech",
        2024,
        algorithms=("adaptive",),
        labels=("single",),
        deviations="the paper moves its strength over the training: give a schedule",
    )
    needs: ClassVar = {"student": (), "teacher": (("logits",),)}

    def __init__(self, strength: NonNegative = 1.0):
        super().__init__()
        self.strength = strength

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        label: Tensor = batch["label"]
        log_probability = full(teacher["logits"]).log_softmax(-1).gather(-1, label.clamp_min(0).unsqueeze(-1)).squeeze(-1)
        return torch.where(label == UNLABELLED, 1.0, (self.strength * log_probability).exp())
