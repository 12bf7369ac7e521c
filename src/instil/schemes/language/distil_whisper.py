"""Distil-Whisper: labels of the teacher, filtered by their error rate, and a divergence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import UNLABELLED, Card, Objective, Objectives, Teacher
from instil.functional.sequence_errors import edit_distance
from instil.generation.sequences import SearchOption, SequenceSearch
from instil.schemes.bases.teacher_sequences import TeacherSequenceScheme


class DistilWhisper(TeacherSequenceScheme):
    """Training on pseudo-labels with few errors (Gandhi et al. 2023, sections 3 and 4).

    The paper's loss is cross_entropy with weight 1 and forward_kl with weight 0.8, both on the
    pseudo-labels. A sample whose pseudo-label differs too much from its label is left out. The
    student starts as the teacher with few decoder layers: ``changes: {depth: {decoder_layers:
    2}}``.
    """

    card = Card(
        "Distil-Whisper: robust knowledge distillation via large-scale pseudo labelling",
        "https://arxiv.org/abs/2311.00430",
        "arXiv",
        2023,
        source="offline",
        tasks=("seq2seq",),
        labels=("single",),
        equation=r"-\log p^s(\hat y | x) + \lambda \sum_i \mathrm{KL}(p^t_i \Vert p^s_i), \quad "
        r"\mathrm{ER}(\hat y, y) \le \tau",
        use="For speech recognition, and other tasks with noisy labels: pseudo-labels have one "
        "format, and the filter removes hallucinations of the teacher and wrong labels.",
        pitfalls="A strict filter keeps only simple samples. Samples without a label are not "
        "filtered.",
        deviations="The error rate counts tokens, so that it is the word error rate where tokens "
        "are words; the paper normalises the text and counts words.",
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        search: SearchOption = SequenceSearch(),
        max_error_rate: Annotated[
            Annotated[float, Ge(0)] | None,
            Doc(
                "largest error rate of a pseudo-label against the label of the data, in tokens; "
                "null: no filter"
            ),
        ] = 0.1,
    ):
        super().__init__(student, teacher, objectives, search)
        self.max_error_rate = max_error_rate

    def remove_filter(self) -> bool:
        """Use all pseudo-labels; returns whether some could be left out."""
        has_filter = self.max_error_rate is not None
        self.max_error_rate = None
        return has_filter

    def choose(self, candidates: Tensor, label: Tensor) -> Tensor:
        best = candidates[0]
        target = label[label != UNLABELLED].tolist()
        if self.max_error_rate is None or not target:
            return best
        errors = edit_distance(best[best != UNLABELLED].tolist(), target)
        is_close = errors <= self.max_error_rate * len(target)
        return best if is_close else torch.full_like(best, UNLABELLED)
