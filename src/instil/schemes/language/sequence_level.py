"""Sequence-level distillation: the student trains on texts that the teacher generates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated

from annotated_types import Ge
from torch import nn
from typing_extensions import Doc

from instil.core import Batch, Card, Objective, Objectives, Teacher, Update
from instil.generation.options import Sampling, SamplingOption
from instil.schemes.bases.teacher_texts import TeacherTexts, VerifyTokens
from instil.schemes.bases.writer import GenerativeScheme


class SequenceLevel(GenerativeScheme):
    """Training on texts that the teacher writes after the prompts (Kim & Rush 2016, section 3.2).

    The generated tokens are the labels and the objective is cross_entropy. With forward_kl in
    addition, the loss also has the paper's word-level term on the same text. A text depends only on
    the seed and the sample, so each one is generated once and cached. With ``verified`` only texts
    with a correct answer are used (rejection sampling).
    """

    card = Card(
        "Sequence-Level Knowledge Distillation",
        "https://arxiv.org/abs/1606.07947",
        "EMNLP",
        2016,
        source="offline",
        tasks=("language",),
        labels=("single",),
        equation=r"-\log p^s(\hat y | x), \quad \hat y \approx \arg\max_y p^t(y | x)",
        use="For a small student: the teacher's texts are simpler than human texts, and the "
        "student can fit them completely. The data need no answers.",
        pitfalls="The student never sees its own mistakes, nor the alternatives that the teacher "
        "considers likely. The likelihood of the data's own texts may fall: evaluate the texts "
        "that the student writes.",
        deviations="The teacher takes the most likely token at each position (a beam of 1); the "
        "paper takes the best of a beam of 5. Temperature 1 samples. The verification is that of "
        "rejection sampling for reasoning (Yuan et al. 2023), not of this paper.",
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        sampling: SamplingOption = Sampling(temperature=0.0),
        verified: Annotated[
            bool,
            Doc("use only texts that the verifier of the data (``data.verifier``) accepts"),
        ] = False,
        candidates: Annotated[
            int,
            Ge(1),
            Doc(
                "largest number of texts per prompt with ``verified``; the first accepted one is "
                "used, and a prompt without one is left out"
            ),
        ] = 1,
    ):
        super().__init__(student, teacher, objectives, sampling)
        if candidates > 1 and (not verified or sampling.temperature == 0):
            raise ValueError(
                "scheme.candidates: several texts per prompt need a verifier that chooses one, and "
                "a temperature above 0. Set verified to true and sampling.temperature to 1, or "
                "candidates to 1"
            )
        self.verified = verified
        self.candidates = candidates
        self.teacher_texts = TeacherTexts()

    def needs_verifier(self) -> bool:
        """Whether the scheme checks the teacher's texts."""
        return self.verified

    def set_verifier(self, verify: VerifyTokens) -> None:
        """Set the check of the teacher's texts.

        Args:
            verify: maps generated tokens and those of the data's answers (N, T) to whether they
                are correct (N,).
        """
        self.teacher_texts = TeacherTexts(verify, self.candidates)

    def remove_filter(self) -> bool:
        """Use all texts of the teacher; returns whether some could be left out."""
        has_filter = self.verified
        self.verified = False
        self.teacher_texts = TeacherTexts()
        return has_filter

    def build(self, batch: Batch) -> None:
        if self.verified and self.teacher_texts.verify is None:
            raise ValueError(
                "scheme.verified: there is no verifier. Expected one. Set data.verifier in a "
                "recipe, or call set_verifier"
            )
        super().build(batch)

    def before_step(self, batch: Batch) -> Batch:
        return self.teacher_texts.replace_text(self, batch)

    def step(self, batch: Batch) -> Iterator[Update]:
        # The text is the teacher's signal; cross_entropy on it does not need another forward pass.
        teacher = self.teacher_outputs(batch) if self.objectives.reads("teacher") else {}
        update: Update = self.objectives(self.student(batch), teacher, batch)
        yield update
