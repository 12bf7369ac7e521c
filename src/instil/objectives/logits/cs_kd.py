"""Class-wise self-distillation: consistent predictions within a class, without a teacher."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, Objective, Outputs, Positive, check_bounds, mean, to_float32
from instil.functional.divergences import expectation
from instil.functional.logits import require_classes
from instil.items import Items


@check_bounds
def cs_kd_loss(
    student_logits: Tensor,
    partner_logits: Tensor,
    pairs: Tensor,
    temperature: Positive = 4.0,
) -> Tensor:
    """KL divergence from the predictions of partners of the same class (Yun et al. 2020).

    Mean over the partners of a row, then over the rows that have one, multiplied by
    ``temperature ** 2``. ``pairs`` with one True in each row gives the paper's single partner.

    Args:
        student_logits: (N, C).
        partner_logits: (M, C), of possible partners; no gradient flows to them.
        pairs: boolean (N, M), True where a row is compared with a partner.
        temperature: softmax temperature, > 0.

    Returns:
        Scalar, 0 if there is no pair.

    Raises:
        ValueError: if the shapes do not fit or there is only one class.

    Example:
        >>> import torch
        >>> cs_kd_loss(torch.zeros(2, 3), torch.eye(3)[:2], torch.eye(2) > 0)
        tensor(0.1166)
    """
    require_classes(student_logits, 2)
    num_pairs = (len(student_logits), len(partner_logits))
    if pairs.shape != num_pairs or student_logits.shape[1:] != partner_logits.shape[1:]:
        shapes = ", ".join(str(tuple(x.shape)) for x in (student_logits, partner_logits, pairs))
        raise ValueError(
            "student_logits, partner_logits, pairs: the shapes do not fit. "
            f"Expected (N, C), (M, C) and (N, M), got {shapes}."
        )
    log_student = (to_float32(student_logits) / temperature).log_softmax(-1)
    log_partner = (to_float32(partner_logits.detach()) / temperature).log_softmax(-1)
    probability = log_partner.exp()
    share = pairs.to(log_student.dtype)
    count = share.sum(1)
    # The mean over the partners is one matrix product; a sample without a partner has a row of
    # zeros.
    share = share / count.clamp_min(1).unsqueeze(1)
    if share.device.type == "cpu" and not torch.compiler.is_compiling():
        share = share.to_sparse()  # few samples of a batch are of one class
    # Autocast would run the matrix products in half precision.
    with torch.autocast(student_logits.device.type, enabled=False):
        # A class of probability 0 contributes 0 to expectation, even if its logarithm is infinite.
        partner_term = share @ expectation(probability, log_partner)
        values = partner_term - expectation(share @ probability, log_student)
    return temperature**2 * mean(values, (count > 0).to(values.dtype))


class CSKD(Objective):
    """KL divergence from the student's own predictions for other samples of the same class.

    Logits are (..., C). Samples without another one of their class in the batch do not count, so a
    batch should hold several samples of a class.
    """

    items = Items(labelled=True)
    card = Card(
        "Regularizing Class-wise Predictions via Self-knowledge Distillation",
        "https://arxiv.org/abs/2003.13964",
        "CVPR",
        2020,
        source="logits",
        labels=("single",),
        couples=True,
        published_weight=1.0,
        weight_setting="the authors' code, CIFAR-100, ResNet18, T = 4",
        deviations="Mean over all partners in the batch; the paper samples one, so this is its "
        "expectation. The authors' loader pairs each sample of a half batch with one of its class, "
        "and only the first half learns.",
        equation=r"\frac{T^2}{\vert A \vert} \sum_{n \in A} \frac{1}{\vert A_n \vert} \sum_{m \in "
        r"A_n} \mathrm{KL}(p_{T,m} \Vert p_{T,n}), \quad A_n = \lbrace m \ne n : y_m = y_n "
        r"\rbrace, \quad A = \lbrace n : A_n \ne \emptyset \rbrace",
        use="A regularizer without a teacher, for fine-grained classes and predictions that vary "
        "within a class. It costs no second network and no second forward pass, only an N x N "
        "table.",
        pitfalls="In a shuffled batch of many classes few samples have a partner, and the loss "
        "depends on those few. Put several samples of a class into each batch. It needs a label "
        "loss: one prediction for all classes has loss 0 here.",
    )
    needs: ClassVar = {"student": (("logits",),), "teacher": ()}

    def __init__(
        self,
        temperature: Annotated[Positive, Doc("softmax temperature of all predictions")] = 4.0,
    ):
        super().__init__()
        self.temperature = temperature

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        logits = student["logits"].flatten(0, -2)
        label = batch["label"].flatten()
        others = ~torch.eye(len(label), dtype=torch.bool, device=label.device)
        pairs = (label[:, None] == label) & others
        return cs_kd_loss(logits, logits, pairs, self.temperature)
