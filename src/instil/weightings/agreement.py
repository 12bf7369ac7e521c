"""Sample weights that increase with the teacher's agreement with the label."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from torch import Tensor
from typing_extensions import Doc

from instil.core import UNLABELLED, Batch, Card, NonNegative, Outputs, Weighting, to_float32


class Agreement(Weighting):
    """Weight exp(-strength CE), with CE the teacher's cross-entropy with the label.

    The weight is 1 if the teacher is certain of the label and near 0 if it is wrong. It is 1
    without a label. After Ganguly et al. 2024, whose factor has another form.
    """

    card = Card(
        "AdaKD: Dynamic Knowledge Distillation of ASR models using Adaptive Loss Weighting",
        "https://arxiv.org/abs/2405.08019",
        "Interspeech",
        2024,
        algorithms=("adaptive",),
        labels=("single",),
        deviations="The paper's factor is exp(-exp(k (L - m) / 2)), with L the teacher's loss, m "
        "its mean over the training set and k falling during the training; the label loss gets the "
        "remainder to 1. Here the loss itself is the exponent, and strength may have a schedule.",
        equation=r"w = e^{\lambda \log p^t_y} = (p^t_y)^\lambda",
        use="With any per-item objective, if the teacher may be wrong on the training samples or "
        "the labels are noisy: samples on which the two disagree count less. It needs labels and "
        "the teacher's logits.",
        pitfalls="The weights are not normalized. They lower the loss by the teacher's mean "
        "probability of the label, so compare at a higher weight of the objective. Hard samples "
        "lose weight even if the teacher is right. A teacher that fits its training set gives 1 "
        "everywhere. It cannot weight objectives that couple the samples of a batch.",
    )
    needs: ClassVar = {"student": (), "teacher": (("logits",),)}

    def __init__(
        self,
        strength: Annotated[
            NonNegative,
            Doc(
                "exponent of the teacher's probability of the label; 0 gives all samples the same "
                "weight"
            ),
        ] = 1.0,
    ):
        super().__init__()
        self.strength = strength

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        label: Tensor = batch["label"]
        index = label.clamp_min(0).unsqueeze(-1)
        log_probability = to_float32(teacher["logits"]).log_softmax(-1).gather(-1, index)
        weight = (self.strength * log_probability.squeeze(-1)).exp()
        return torch.where(label == UNLABELLED, 1.0, weight)
