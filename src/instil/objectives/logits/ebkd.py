"""Entropy-weighted teachers: of several, the one that is surest of a sample says most about it."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.core import Batch, Card, Positive, full
from instil.functional.divergences import expectation
from instil.functional.ensembles import divergences, favour_small
from instil.functional.logits import reduced
from instil.objectives.bases.several_teachers_objective import SeveralTeachersObjective


def ebkd_loss(
    student: Tensor, teachers: Tensor, temperature: float = 4.0, reduction: str = "mean"
) -> Tensor:
    """Sum over K teachers of w T² KL(teacher || student), with the weights of ``ebkd_weights`` (Kwon et al. 2020, as in Zhang et al. 2022).

    Student logits (..., C), teacher logits (K, ..., C) give (...) for reduction ``none``. Raises ValueError where shapes do not fit.
    """
    return reduced(
        (ebkd_weights(teachers) * divergences(student, teachers, temperature)).sum(0), reduction
    )


def ebkd_weights(teachers: Tensor) -> Tensor:
    """w = (1 - H / sum H) / (K - 1), H the entropy of each teacher at temperature 1: logits (K, ..., C) give (K, ...), which sum to 1.

    Teachers that are all sure have equal weights.
    """
    log_probability = full(teachers).log_softmax(-1)
    entropy = -expectation(log_probability.exp(), log_probability)
    total = entropy.sum(0)
    shares = torch.where(total > 0, entropy / torch.where(total > 0, total, 1.0), 1 / len(teachers))
    return favour_small(shares)


class EBKD(SeveralTeachersObjective):
    """KD from each teacher of an ensemble, weighted sample by sample by how sure the teacher is; logits (..., C).

    ``temperature``: divides the logits of the divergences; the entropies are at temperature 1.
    """

    card = Card(
        "Adaptive knowledge distillation based on entropy",
        "https://doi.org/10.1109/ICASSP40776.2020.9054698",
        "ICASSP",
        2020,
        source="logits",
        algorithms=("multi-teacher", "adaptive"),
        labels=("single",),
        deviations="The weights are those under which CA-MKD's authors compare with it, here divided by their sum K - 1, there by K; the paper is on "
        "speech recognition and has no public code.",
        equation=r"\sum_k w_k T^2 \mathrm{KL}(p^{t_k}_T \Vert p^s_T), \quad w_k = \frac{1}{K - 1} \Big( 1 - \frac{H(p^{t_k})}{\sum_j H(p^{t_j})} "
        r"\Big)",
        use="Several teachers of unlike strengths and no labels for part of the samples: list them under teacher. It costs their forward passes "
        "and one divergence each; with one teacher it is kd.",
        pitfalls="Sure is not right: a teacher that errs with confidence is followed, where camkd asks the label. Teachers that fit the training set "
        "are all sure of it, so their small entropies decide: look at held-out samples, or use augmentation. Of many teachers the weights are "
        "nearly equal, between 0 and 1 / (K - 1).",
    )

    def __init__(self, temperature: Positive = 4.0):
        super().__init__()
        self.temperature = temperature

    def loss(self, student: Tensor, teachers: Tensor, batch: Batch) -> Tensor:
        return ebkd_loss(student, teachers, self.temperature, "none")
