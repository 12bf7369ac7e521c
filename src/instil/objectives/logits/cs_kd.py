"""Class-wise self-distillation: samples of one class get one prediction, without a teacher."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from instil.core import Batch, Card, LabelObjective, Outputs, Positive, full, mean
from instil.functional.divergences import expectation
from instil.functional.logits import require_classes


def cs_kd_loss(student: Tensor, partner: Tensor, pairs: Tensor, temperature: float = 4.0) -> Tensor:
    """T² KL(partner || student) at temperature T of all ``pairs`` (N, M), mean over a row's partners, then over the rows that have one; a scalar.

    Logits (N, C) and those of possible partners (M, C), to which no gradient flows (Yun et al. 2020; ``pairs`` with one True a row
    is the paper's one partner). Zero where there is no pair. Raises ValueError for one class and where shapes do not fit.
    """
    require_classes(student, 2)
    if pairs.shape != (len(student), len(partner)) or student.shape[1:] != partner.shape[1:]:
        shapes = f"logits {tuple(student.shape)}, partners {tuple(partner.shape)}, pairs {tuple(pairs.shape)}"
        raise ValueError(f"{shapes}; expected (N, C), (M, C) and (N, M)")
    log_student = (full(student) / temperature).log_softmax(-1)
    log_partner = (full(partner.detach()) / temperature).log_softmax(-1)
    probability = log_partner.exp()
    share = pairs.to(log_student.dtype)
    count = share.sum(1)
    share = share / count.clamp_min(1).unsqueeze(1)
    if share.device.type == "cpu" and not torch.compiler.is_compiling():
        share = share.to_sparse()  # few samples of a batch are of one class
    with torch.autocast(student.device.type, enabled=False):
        # ``expectation`` takes a class of probability 0 as 0, even where its logarithm is infinite.
        values = share @ expectation(probability, log_partner) - expectation(
            share @ probability, log_student
        )
    return temperature**2 * mean(values, (count > 0).to(values.dtype))


class CSKD(LabelObjective):
    """The student's prediction for a sample follows its own for the other samples of the class in the batch; logits (..., C).

    ``temperature``: divides the logits.

    A sample alone in its class does not count, so the batch should hold several of a class. Zero where a class has one prediction.
    """

    card = Card(
        "Regularizing Class-wise Predictions via Self-knowledge Distillation",
        "https://arxiv.org/abs/2003.13964",
        "CVPR",
        2020,
        source="logits",
        labels=("single",),
        couples=True,
        deviations="Mean over all partners in the batch; the paper draws one, of which this is the expectation. The authors' loader pairs each "
        "sample of a half batch with one of its class, and only the first half learns.",
        equation=r"\frac{T^2}{\vert A \vert} \sum_{n \in A} \frac{1}{\vert A_n \vert} \sum_{m \in A_n} \mathrm{KL}(p_{T,m} \Vert p_{T,n}), \quad "
        r"A_n = \lbrace m \ne n : y_m = y_n \rbrace, \quad A = \lbrace n : A_n \ne \emptyset \rbrace",
        use="A regularizer without a teacher, for classes that differ finely and predictions that scatter within a class. It costs no second "
        "network and no second forward pass, only an N x N table.",
        pitfalls="In a shuffled batch of many classes few samples find a partner, and the loss rests on those few: draw several samples of a "
        "class into each batch. The paper runs weight 1 at T = 4 beside cross-entropy. It needs a label loss beside it: one prediction for all "
        "classes costs nothing here.",
    )
    needs: ClassVar = {"student": (("logits",),), "teacher": ()}

    def __init__(self, temperature: Positive = 4.0):
        super().__init__()
        self.temperature = temperature

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        logits, label = student["logits"].flatten(0, -2), batch["label"].flatten()
        others = ~torch.eye(len(label), dtype=torch.bool, device=label.device)
        return cs_kd_loss(logits, logits, (label[:, None] == label) & others, self.temperature)
