"""Teacher-free KD by self-training: the teacher is an earlier training of the same network."""

from __future__ import annotations

from typing import Annotated

from typing_extensions import Doc

from instil.core import Card, Positive
from instil.objectives.logits.kd import KD


class TfKDSelf(KD):
    """KD from a copy of the student that was trained without a teacher; logits (..., C).

    The default temperature is that of the authors' ResNet-18 on CIFAR-100.
    """

    card = Card(
        "Revisiting Knowledge Distillation via Label Smoothing Regularization",
        "https://arxiv.org/abs/1909.11723",
        "CVPR",
        2020,
        source="logits",
        labels=("single",),
        published_weight=9.5,
        weight_setting="the authors' code, CIFAR-100, ResNet18, T = 6: 0.95 times 50 on the mean "
        "over 100 classes, and 0.05 for the label loss",
        deviations="The authors' code also averages over the classes and multiplies by up to "
        "50, which is a weight here.",
        equation=r"T^2 \mathrm{KL}(p^t_T \Vert p^s_T), \quad p^t \text{ of the same "
        r"architecture, trained before}",
        use="If there is no stronger teacher: train the student once, freeze it, and train it "
        "again from scratch with itself as the teacher. It costs the first training and the "
        "forward pass of the frozen network. The loss reads no labels.",
        pitfalls="The gain is regularization, so compare with label_smoothing and with a "
        "student trained for the same total time. The authors tune temperature and weight for "
        "each network. Start the student from new weights: from the teacher's own weights the "
        "loss is zero.",
    )

    def __init__(self, temperature: Annotated[Positive, Doc("softmax temperature")] = 6.0):
        super().__init__(temperature)
