"""Knowledge distillation on standardized logits."""

from __future__ import annotations

from typing import Annotated

from typing_extensions import Doc

from instil.core import Card, Positive
from instil.objectives.logits.kd import KD


class LogitStandardization(KD):
    """KD on logits (..., C) with mean 0 and standard deviation 1 over the classes.

    The authors use temperature 2 and weight 9, with weight 0.1 for the label loss, on CIFAR-100.
    """

    card = Card(
        "Logit Standardization in Knowledge Distillation",
        "https://arxiv.org/abs/2403.01427",
        "CVPR",
        2024,
        source="logits",
        finite_logits=True,
        labels=("single",),
        published_weight=90.0,
        weight_setting="the authors' code, CIFAR-100, T = 2: 9, and 0.1 for the label loss",
        deviations="Every logit loss of this package with an option standardize accepts "
        "standardized logits; this method is KD with that option.",
        equation=r"T^2 \mathrm{KL}(\mathrm{softmax}(\tilde{z}^t / T) \Vert "
        r"\mathrm{softmax}(\tilde{z}^s / T)), \quad \tilde{z} = \frac{z - "
        r"\mathrm{mean}_c(z)}{\mathrm{std}_c(z)}",
        use="For a student whose logits cannot or should not have the teacher's range: the loss "
        "only matches the relations between classes. It has no parameters. Only the label loss "
        "sets the student's confidence, so add one.",
        pitfalls="Temperature and weight of kd do not carry over, because the logits have standard "
        "deviation 1. The authors tune the weight for each pair. A weight chosen so that the first "
        "gradient is as long as that of kd is far too small. The loss is undefined for two "
        "classes. The standard deviation is taken per item, so items without any preference are "
        "scaled up to the same level as confident ones.",
    )

    def __init__(
        self,
        temperature: Annotated[
            Positive, Doc("softmax temperature of the standardized logits")
        ] = 2.0,
        scale: Annotated[bool, Doc("multiply the loss by temperature ** 2")] = True,
    ):
        super().__init__(temperature, scale, standardize=True)
