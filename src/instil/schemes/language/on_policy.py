"""The student writes, and learns what the teacher would have said at each of its words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated

from annotated_types import Ge, Le
from torch import nn

from instil.core import (
    Batch,
    Card,
    NonNegative,
    Objective,
    Objectives,
    Teacher,
    Update,
    at_progress,
)
from instil.generation.sampling import step_uniform
from instil.schemes.bases.writer import GenerativeScheme, Share, Token, Tokens

CHOOSING = 3101
"""A salt."""


class OnPolicy(GenerativeScheme):
    """With probability ``share`` a step learns from text of the student's own, else from the given one (Agarwal et al. 2024, Algorithm 1).

    The objectives are divergences of tokens: jsd, reverse_kl, forward_kl and others; one that needs labels sees the given text alone.

    ``share``: how many of the steps are on the student's own text, the paper's lambda.
    ``end``: the token that ends a text; in a recipe null is that of the data's tokenizer.
    ``min_prompt_tokens``: of a row at least so many tokens are read, not written.
    ``max_new_tokens``: of a text; null: as many as the row is long.
    ``temperature``: of what is written; 0 is the likeliest token.
    ``top_p``: it is one of the likeliest that have so much probability together.
    ``vocabulary``: number of tokens that may be written, where heads are padded; in a recipe null is that of the data's tokenizer.
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
        use="A student that must write long texts: on given text it never sees its own mistakes, here it learns what to say after them. It needs "
        "prompts alone, so text without answers is enough for the steps on its own text.",
        pitfalls="Let the student learn from given text first: of nonsense the teacher has little to say. Writing is the larger part of the time, "
        "token after token. No gradient passes through the choice of a token, and nothing corrects for that: minillm does.",
        deviations="The paper's reward term is left out.",
    )
    needs_teacher_logits = False

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        share: Annotated[float, Ge(0), Le(1)] = 0.5,
        end: Token | None = None,
        min_prompt_tokens: Tokens = 1,
        max_new_tokens: Tokens | None = None,
        temperature: NonNegative = 1.0,
        top_p: Share = 1.0,
        vocabulary: Tokens | None = None,
    ):
        super().__init__(
            student,
            teacher,
            objectives,
            end,
            min_prompt_tokens,
            max_new_tokens,
            temperature,
            top_p,
            vocabulary,
        )
        self.share = share

    def before_step(self, batch: Batch) -> Batch:
        return (
            self.student_text(batch)
            if step_uniform(batch, CHOOSING) < at_progress(self.share, batch)
            else batch
        )

    def step(self, batch: Batch) -> Iterator[Update]:
        yield self.compute_losses(batch)
