"""KD of standardized logits: the student is told how the classes relate, not how far apart its logits must be."""

from __future__ import annotations

from instil.core import Card, Positive
from instil.objectives.logits.kd import KD


class LogitStandardization(KD):
    """KD of logits (..., C) that have mean 0 and standard deviation 1 over the classes on both sides.

    ``temperature``: divides the standardized logits; 2 with weight 9 beside a tenth of the label loss on CIFAR-100.
    ``scale``: the factor T².
    """

    card = Card(
        "Logit Standardization in Knowledge Distillation",
        "https://arxiv.org/abs/2403.01427",
        "CVPR",
        2024,
        source="logits",
        finite_logits=True,
        labels=("single",),
        deviations="Any loss of logits here takes standardize=True where its card says so; this is KD with it.",
        equation=r"T^2 \mathrm{KL}(\mathrm{softmax}(\tilde{z}^t / T) \Vert \mathrm{softmax}(\tilde{z}^s / T)), \quad \tilde{z} = \frac{z - "
        r"\mathrm{mean}_c(z)}{\mathrm{std}_c(z)}",
        use="For a student whose logits cannot or should not have the teacher's range: only how the classes relate is matched. No parameters; the "
        "label loss alone sets the student's confidence, so it wants one beside it.",
        pitfalls="Temperature and weight of kd do not carry over, since the logits have deviation 1. Published on CIFAR-100: temperature 2 and "
        "weight 9 beside 0.1 of the label loss, tuned for each pair. A weight that makes its first gradient as long as that of kd is far too "
        "small. It is undefined for two classes. Deviations are taken over the classes of one item, so items without any preference are "
        "blown up to the same scale as sure ones.",
    )

    def __init__(self, temperature: Positive = 2.0, scale: bool = True):
        super().__init__(temperature, scale, standardize=True)
