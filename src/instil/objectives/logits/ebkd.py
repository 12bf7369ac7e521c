"""Several teachers, weighted for each sample by their entropy."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, Positive, check_bounds, to_float32
from instil.functional.divergences import expectation
from instil.functional.ensembles import inverse_share_weights, teacher_divergences
from instil.functional.logits import apply_reduction
from instil.objectives.bases.several_teachers_objective import SeveralTeachersObjective


@check_bounds
def ebkd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: Positive = 4.0,
    reduction: str = "mean",
) -> Tensor:
    """Entropy-weighted sum of KD losses from K teachers (Kwon et al. 2020).

    ``w * temperature ** 2 * KL(teacher || student)``, summed over the teachers, with the weights
    of ``ebkd_weights`` as in Zhang et al. 2022.

    Args:
        student_logits: (..., C).
        teacher_logits: (K, ..., C), one entry for each teacher.
        temperature: softmax temperature of the divergences, > 0.
        reduction: ``"mean"`` or ``"none"`` (one value per item).

    Returns:
        Scalar, or (...) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes do not fit.

    Example:
        >>> import torch
        >>> teacher_logits = torch.stack([torch.eye(3)[:2], 2 * torch.eye(3)[:2]])
        >>> ebkd_loss(torch.zeros(2, 3), teacher_logits)
        tensor(0.3342)
    """
    values = teacher_divergences(student_logits, teacher_logits, temperature)
    weights = ebkd_weights(teacher_logits)
    return apply_reduction((weights * values).sum(0), reduction)


def ebkd_weights(teacher_logits: Tensor) -> Tensor:
    """Weights of K teachers, larger for a lower entropy: ``w = (1 - H / sum(H)) / (K - 1)``.

    H is the entropy of each teacher at temperature 1.

    Args:
        teacher_logits: (K, ..., C).

    Returns:
        Weights (K, ...) that sum to 1 over the teachers; equal ones where all entropies are 0.
    """
    log_probability = to_float32(teacher_logits).log_softmax(-1)
    entropy = -expectation(log_probability.exp(), log_probability)
    total = entropy.sum(0)
    # The inner where keeps 0 / 0 out of the graph: NaN would reach the gradient through where.
    normalised = entropy / torch.where(total > 0, total, 1.0)
    shares = torch.where(total > 0, normalised, 1 / len(teacher_logits))
    return inverse_share_weights(shares)


class EBKD(SeveralTeachersObjective):
    """KD from each teacher of an ensemble, weighted for each sample by the teacher's confidence.

    Logits are (..., C).
    """

    card = Card(
        "Adaptive knowledge distillation based on entropy",
        "https://doi.org/10.1109/ICASSP40776.2020.9054698",
        "ICASSP",
        2020,
        source="logits",
        algorithms=("multi-teacher", "adaptive"),
        labels=("single",),
        published_weight=0.67,
        weight_setting="the code of CA-MKD, CIFAR-100, three teachers, whose weights sum to 2/3 in "
        "the code and to 1 here",
        deviations="The weights are those with which the authors of CA-MKD compare their method, "
        "here divided by their sum K - 1, there by K. The paper is on speech recognition and has "
        "no public code.",
        equation=r"\sum_k w_k T^2 \mathrm{KL}(p^{t_k}_T \Vert p^s_T), \quad w_k = \frac{1}{K - 1} "
        r"\Big( 1 - \frac{H(p^{t_k})}{\sum_j H(p^{t_j})} \Big)",
        use="Several teachers of different strength, and no labels for part of the samples: list "
        "them under teacher. It costs their forward passes and one divergence for each. With one "
        "teacher it is kd.",
        pitfalls="Confidence is not correctness: the student follows a teacher that is confidently "
        "wrong, where camkd uses the label. Teachers that fit the training set are all confident "
        "on it, so their small entropies decide: check held-out samples, or use augmentation. With "
        "many teachers the weights are nearly equal, between 0 and 1 / (K - 1).",
    )

    def __init__(
        self,
        temperature: Annotated[
            Positive, Doc("softmax temperature of the divergences; the entropies use 1")
        ] = 4.0,
    ):
        super().__init__()
        self.temperature = temperature

    def loss(self, student_logits: Tensor, teacher_logits: Tensor, batch: Batch) -> Tensor:
        return ebkd_loss(student_logits, teacher_logits, self.temperature, "none")
