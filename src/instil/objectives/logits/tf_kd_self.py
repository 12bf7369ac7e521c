"""Teacher-free distillation by self-training: the teacher is the same network, trained once before."""

from __future__ import annotations

from instil.core import Card, Positive
from instil.objectives.logits.kd import KD


class TfKDSelf(KD):
    """KD from a copy of the student that was trained without a teacher; logits (..., C).

    ``temperature``: divides the logits.

    The default is that of the authors' ResNet-18 on CIFAR-100.
    """

    card = Card(
        "Revisiting Knowledge Distillation via Label Smoothing Regularization",
        "https://arxiv.org/abs/1909.11723",
        "CVPR",
        2020,
        source="logits",
        labels=("single",),
        deviations="The authors' code averages over the classes too and multiplies by up to 50, which is a weight here.",
    )

    def __init__(self, temperature: Positive = 6.0):
        super().__init__(temperature)
