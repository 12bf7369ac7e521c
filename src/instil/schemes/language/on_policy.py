"""On-policy distillation: the student trains on its own text with token-level teacher targets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated

from annotated_types import Ge, Le
from torch import nn
from typing_extensions import Doc

from instil.core import Batch, Card, Objective, Objectives, Teacher, Update
from instil.generation.options import Sampling, SamplingOption
from instil.generation.rollout_options import RolloutOption, Rollouts
from instil.schemes.bases.writer import GenerativeScheme, Retokenize


class OnPolicy(GenerativeScheme):
    """Training on the student's own text in a share of the steps (Agarwal et al. 2024, Alg. 1).

    The other steps use the text of the data. The objectives are token-level divergences such as
    jsd, reverse_kl or forward_kl. An objective that needs labels applies to the text of the data
    only. With a teacher of another tokenizer (``teacher.tokenizer``) the objectives are uld or
    gold, and the student's text is encoded again for the teacher.
    """

    card = Card(
        "On-Policy Distillation of Language Models: Learning from Self-Generated Mistakes",
        "https://arxiv.org/abs/2306.13649",
        "ICLR",
        2024,
        source="online",
        algorithms=("adaptive",),
        tasks=("language",),
        labels=("single",),
        equation=r"(1 - \lambda) \mathbb{E}_{(x, y) \sim \mathrm{data}} D(p^t \Vert p^s)(y | x) + "
        r"\lambda \mathbb{E}_x \mathbb{E}_{y \sim p^s(\cdot | x)} D(p^t \Vert p^s)(y | x)",
        use="For a student that must write long texts. On the text of the data it never meets its "
        "own mistakes; here it learns how to continue after them. Steps on its own text need "
        "prompts only, so texts without answers are enough for them.",
        pitfalls="Train the student on the text of the data first: the teacher has no useful "
        "target for nonsense. Generation, token after token, takes most of the time. No gradient "
        "passes through the choice of a token, and nothing corrects for that; minillm does. With "
        "rollouts.staleness, texts come from earlier weights; the sample weight "
        "truncated_importance corrects for them.",
        deviations="The reward term of the paper is left out. Texts of earlier weights "
        "(``rollouts``) are not part of the paper.",
    )
    needs_teacher_logits = False

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        share: Annotated[
            float,
            Ge(0),
            Le(1),
            Doc("share of the steps that use the student's own text, the paper's lambda"),
        ] = 0.5,
        sampling: SamplingOption = Sampling(),
        rollouts: RolloutOption = Rollouts(),
    ):
        super().__init__(student, teacher, objectives, sampling, rollouts)
        self.share = share

    def set_retokenizer(self, retokenize: Retokenize) -> None:
        """Set the function that encodes the student's text for a teacher with another tokenizer.

        Args:
            retokenize: maps rows of the data and generated rows to the latter with the teacher's
                tokens.
        """
        self.retokenize = retokenize

    def before_step(self, batch: Batch) -> Batch:
        return self.student_text(batch)

    def step(self, batch: Batch) -> Iterator[Update]:
        yield self.compute_losses(batch)
