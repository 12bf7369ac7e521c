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
        equation=r"T^2 \mathrm{KL}(p^t_T \Vert p^s_T), \quad p^t \text{ of the same architecture, trained before}",
        use="Where there is no stronger teacher: train the student once, freeze it, and train it again from scratch under itself. It costs the "
        "first training and the frozen net's forward pass; no labels are read by this term.",
        pitfalls="What is gained is regularization, so compare with label_smoothing and with a student trained as long in all. The authors tune "
        "temperature and weight for each net. Start the student from fresh weights: from the teacher's own the loss is zero.",
    )

    def __init__(self, temperature: Positive = 6.0):
        super().__init__(temperature)
