"""Sample weights that depend on the entropy of teacher and student."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, Outputs, Positive, Weighting, to_float32


def entropy(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Entropy of the softmax, in nats.

    Args:
        logits: (..., C). With C = 1 it is the entropy of the sigmoid.
        temperature: softmax temperature, > 0.

    Returns:
        (...).

    Example:
        >>> entropy(torch.zeros(1, 2))
        tensor([0.6931])
    """
    logits = to_float32(logits) / temperature
    if logits.shape[-1] == 1:
        logits = torch.cat([logits, torch.zeros_like(logits)], -1)
    log_probability = logits.log_softmax(-1)
    return -(log_probability.exp() * log_probability).sum(-1).clamp_max(0)


class Entropy(Weighting):
    """Weight H(teacher) (1 + H(student) / log C) / 2 (Su et al. 2025, Eq. 5 to 7).

    The weight is between 0 and log C.
    """

    card = Card(
        "EA-KD: Entropy-based Adaptive Knowledge Distillation",
        "https://arxiv.org/abs/2311.13621",
        "ICCV",
        2025,
        algorithms=("adaptive",),
        labels=("single", "binary"),
        deviations="The authors' code divides the student's entropy by log C on ImageNet, as here, "
        "but by C on CIFAR-100, which makes its part 22 times smaller there. The authors have "
        "prefer: unsure only.",
        equation=r"w = \frac{1}{2} H(p^t_T) \Big( 1 + \frac{H(p^s_T)}{\log C} \Big), "
        r"\quad H(p) = -\sum_{c=1}^{C} p_c \log p_c",
        use="With a per-item objective, to give samples near a class boundary more weight than "
        "those that are easy for the teacher. Published for kd, dkd and feature losses. It needs "
        "no labels and costs two entropies.",
        pitfalls="The weights reach log C and are not normalized: with many classes the objective "
        "grows, and the published weights are for that size. With a peaked teacher and a low "
        "temperature nearly all weights vanish. Noisy and ambiguous samples have a high entropy "
        "too. It cannot weight objectives that couple the samples of a batch.",
    )

    def __init__(
        self,
        temperature: Annotated[Positive, Doc("softmax temperature of both entropies")] = 3.0,
        prefer: Annotated[
            Literal["unsure", "certain"],
            Doc(
                "samples with more weight: unsure as published; certain uses 1 - H(teacher) / log C"
            ),
        ] = "unsure",
    ):
        super().__init__()
        self.temperature = temperature
        self.prefer = prefer

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        largest = math.log(max(2, teacher["logits"].shape[-1]))
        teacher_entropy = entropy(teacher["logits"], self.temperature)
        if self.prefer == "certain":
            return 1 - teacher_entropy / largest
        student_entropy = entropy(student["logits"], self.temperature)
        return teacher_entropy * (1 + student_entropy / largest) / 2
