"""Patient KD: the student's [CLS] states follow the teacher's through the layers, not only at the end."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from instil.core import Batch, Card, Outputs
from instil.functional.errors import squared_error
from instil.functional.feature_maps import require_same_shape
from instil.functional.hidden_states import layer_map, layer_tensors
from instil.functional.logits import apply_reduction
from instil.objectives.bases.hidden_objective import HiddenObjective


def patient_kd_loss(
    student: Tensor, teacher: Tensor, normalize: bool = True, reduction: str = "mean"
) -> Tensor:
    """Mean squared difference of [CLS] states (N, layers, D), each divided by its length with ``normalize`` (Sun et al. 2019, section 3.2).

    Mean over layers and width, as in the authors' code; the paper sums over both. Raises ValueError where the shapes differ.
    """
    student, teacher = require_same_shape(student, teacher, "patient_kd_loss")
    if normalize:
        student, teacher = F.normalize(student, dim=-1), F.normalize(teacher, dim=-1)
    return apply_reduction(squared_error(student, teacher), reduction)


class PatientKD(HiddenObjective):
    """[CLS] states (the first token's) of all student layers but the last near those of teacher layers; the last learns by ``kd``.

    ``layers``: skip spreads the student's layers over the teacher's (2, 4, ... 10 of 12), last takes the teacher's topmost but one (7 ... 11),
    or [[student layer, teacher layer], ...], the first layer being 1.
    ``normalize``: states to unit length first.
    """

    card = Card(
        "Patient knowledge distillation for BERT model compression",
        "https://arxiv.org/abs/1908.09355",
        "EMNLP",
        2019,
        source="features",
        tasks=("text_classification", "classification"),
        deviations="mean over layers and width, as in the code, where the paper sums: its weight is the paper's times layers times width; "
        "a linear projection where the widths differ, which the paper excludes",
        equation=r"\frac{1}{M D} \sum_{m=1}^{M} \left\lVert \frac{h^s_m}{\lVert h^s_m \rVert_2} - \frac{h^t_{g(m)}}{\lVert h^t_{g(m)} \rVert_2} "
        r"\right\rVert_2^2",
        use="Classification of sequences with BERT-like nets, beside kd and labels, for a student of the same width with fewer layers, which the "
        "paper initialises from the teacher's first ones. One token a sample is compared, so it is cheap.",
        pitfalls="The first token must be a summary ([CLS]), which it is not in decoders or mean-pooled nets. Entries of unit vectors are small: "
        "the paper searches the weight among 10, 100, 500 and 1000 for each task.",
    )

    def __init__(
        self, layers: Literal["skip", "last"] | list[list[int]] = "skip", normalize: bool = True
    ):
        super().__init__()
        self.layers = layers  # type: ignore[assignment]
        self.normalize = normalize

    def choose(self, student: int, teacher: int) -> list[tuple[int, int]]:
        rule: str | list[list[int]] = self.layers
        if isinstance(rule, list):
            return layer_map(rule, student, teacher, first=0)
        if student < 2 or (rule == "last" and student > teacher):
            raise ValueError(
                f"layers: '{rule}' leaves out the last layer, and the student has {student}, the teacher {teacher}; name the pairs"
            )
        if rule == "last":
            return [(m, teacher - student + m) for m in range(1, student)]
        if rule == "skip":
            return layer_map("uniform", student, teacher)[:-1]
        raise ValueError(
            f"layers: {rule!r} is neither 'skip' nor 'last' nor a list of [student layer, teacher layer]"
        )

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        # Only the first token is projected: the others may be padding that is not finite.
        first_of_student, first_of_teacher = (
            {"hidden_states": tuple(state[:, :1] for state in layer_tensors(side, "hidden_states"))}
            for side in (student, teacher)
        )
        pairs = self.matched_pairs(first_of_student, first_of_teacher)
        first = [(mine[:, 0], theirs[:, 0]) for mine, theirs in pairs]
        mine, theirs = (torch.stack(side, 1) for side in zip(*first, strict=True))
        return patient_kd_loss(mine, theirs, self.normalize, "none")
