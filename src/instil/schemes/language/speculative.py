"""The student writes, and the teacher takes the pen where it would never have said that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn

from instil.core import (
    Batch,
    Card,
    NonNegative,
    Objective,
    Objectives,
    Teacher,
    Update,
    side_effect_free,
)
from instil.generation.sampling import sample_tokens
from instil.schemes.bases.writer import GenerativeScheme, Share, Token, Tokens


def interleaved(
    student: Tensor,
    teacher: Tensor,
    numbers: Tensor,
    top_k: int,
    temperature: float = 1.0,
    top_p: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Tokens (N,) that the student proposes, or that the teacher draws instead where they are not among its ``top_k`` likeliest.

    Logits (N, V) of both, two numbers in [0, 1) a row. With them comes each token's log-probability by the net that said it.
    """
    proposed, log_s = sample_tokens(student, numbers[:, 0], temperature, top_p)
    other, log_t = sample_tokens(teacher, numbers[:, 1], temperature, top_p)
    taken = (teacher > teacher.gather(-1, proposed[:, None])).sum(
        -1
    ) < top_k  # so many are likelier
    return torch.where(taken, proposed, other), torch.where(taken, log_s, log_t)


class Speculative(GenerativeScheme):
    """A text is the student's, but for words out of the teacher's ``top_k``, which the teacher replaces (Xu et al. 2025, Algorithm 1).

    The objectives are divergences of tokens on that text. With top_k of the whole vocabulary it is on_policy, with 1 it is the teacher's text.

    ``top_k``: the student's word stays if it is one of so many likeliest of the teacher's.
    ``end``: the token that ends a text; in a recipe null is that of the data's tokenizer.
    ``min_prompt_tokens``: of a row at least so many tokens are read, not written.
    ``max_new_tokens``: of a text; null: as many as the row is long.
    ``temperature``: of what is written, by both; 0 is the likeliest token.
    ``top_p``: it is one of the likeliest that have so much probability together.
    ``vocabulary``: number of tokens that may be written, where heads are padded; in a recipe null is that of the data's tokenizer.
    """

    card = Card(
        "Speculative Knowledge Distillation: Bridging the Teacher-Student Gap Through Interleaved Sampling",
        "https://arxiv.org/abs/2410.11325",
        "ICLR",
        2025,
        source="online",
        algorithms=("adaptive",),
        tasks=("language",),
        labels=("single",),
        equation=r"y_i \sim p^s, \; y_i \leftarrow y'_i \sim p^t \text{ if } y_i \notin \mathrm{top}_K(p^t); \quad \min_s D(p^t \Vert p^s)(y | x)",
        use="A student too weak for on_policy: its own text would be nonsense of which the teacher has little to say. As it learns, more and more of "
        "the text becomes its own.",
        pitfalls="Both nets write, so a step costs more than one of on_policy. A small top_k is nearly the teacher's text, a large one nearly the "
        "student's; the paper has 25 of some 256,000.",
        deviations="The teacher looks at each token at once; the paper's checks several proposed tokens in one pass, which gives the same texts.",
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        top_k: Annotated[int, Ge(1)] = 25,
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
        self.top_k = top_k

    def before_step(self, batch: Batch) -> Batch:
        def choose(logits: Sequence[Tensor], numbers: Tensor) -> tuple[Tensor, Tensor]:
            student, teacher = logits
            return interleaved(student, teacher, numbers, self.top_k, *self.sampling_now(batch))

        assert self.teacher is not None
        with side_effect_free(self.student):
            return self.generate_with(batch, [self.student, self.teacher], choose)

    def step(self, batch: Batch) -> Iterator[Update]:
        yield self.compute_losses(batch)
