"""Sequence-level distillation of encoder-decoders: labels are the teacher's beam search."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import UNLABELLED, Card, Objective, Objectives, Teacher
from instil.functional.sequence_errors import edit_distance
from instil.generation.sequences import SearchOption, SequenceSearch
from instil.schemes.bases.teacher_sequences import TeacherSequenceScheme


class SequenceKD(TeacherSequenceScheme):
    """Training on the sequences that the teacher finds (Kim & Rush 2016, sections 3.2 and 3.3).

    The objective is cross_entropy. With forward_kl in addition, the loss also has the paper's
    word-level term on the same sequences. Each sequence is found once per training and cached.
    """

    card = Card(
        "Sequence-Level Knowledge Distillation (encoder-decoders)",
        "https://arxiv.org/abs/1606.07947",
        "EMNLP",
        2016,
        source="offline",
        tasks=("seq2seq",),
        labels=("single",),
        equation=r"-\log p^s(\hat y | x), \quad \hat y \approx \arg\max_y p^t(y | x)",
        use="For a small encoder-decoder: the teacher's outputs are simpler than the data's, and "
        "inputs need no labels. Greedy search of the student then comes close to its beam search.",
        pitfalls="Errors of the teacher become labels. Where every input has a correct label, "
        "compare with word-level kd. The search runs once per sample and training.",
        deviations="interpolate compares with the label by edit distance per token, the paper by "
        "smoothed BLEU.",
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        search: SearchOption = SequenceSearch(beams=5),
        interpolate: Annotated[
            bool,
            Doc(
                "whether a labelled sample gets the hypothesis that is closest to its label "
                "(section 3.3) instead of the most likely one"
            ),
        ] = False,
    ):
        super().__init__(student, teacher, objectives, search)
        self.interpolate = interpolate

    def choose(self, candidates: Tensor, label: Tensor) -> Tensor:
        target = label[label != UNLABELLED].tolist()
        if not self.interpolate or not target:
            return candidates[0]
        # The first of equal distances is the most likely hypothesis.
        distances = [
            edit_distance(candidate[candidate != UNLABELLED].tolist(), target)
            for candidate in candidates
        ]
        return candidates[distances.index(min(distances))]
