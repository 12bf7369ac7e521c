"""Speculative distillation: the teacher replaces the student's tokens that it ranks too low."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Batch, Card, Objective, Objectives, Teacher, Update, side_effect_free
from instil.generation.options import Sampling, SamplingOption
from instil.generation.sampling import sample_tokens
from instil.schemes.bases.rollouts import ratios
from instil.schemes.bases.writer import GenerativeScheme


def sample_interleaved(
    student_logits: Tensor,
    teacher_logits: Tensor,
    uniforms: Tensor,
    top_k: int,
    temperature: float = 1.0,
    top_p: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Sample a token from the student, and from the teacher where the teacher ranks it too low.

    Args:
        student_logits: (N, V).
        teacher_logits: (N, V).
        uniforms: random numbers in [0, 1) (N, 2), for the student's and the teacher's token.
        top_k: the student's token is accepted if fewer than ``top_k`` tokens have a larger teacher
            logit.
        temperature: sampling temperature of both; 0 is the most likely token.
        top_p: nucleus sampling threshold of both.

    Returns:
        Tokens (N,), and their log-probabilities (N,) by the network that sampled them.

    Example:
        >>> import torch
        >>> student_logits = torch.tensor([[0.0, 9.0, 0.0]])
        >>> teacher_logits = torch.tensor([[9.0, 1.0, 0.0]])
        >>> uniforms = torch.tensor([[0.5, 0.5]])
        >>> sample_interleaved(student_logits, teacher_logits, uniforms, top_k=1)[0]
        tensor([0])
        >>> sample_interleaved(student_logits, teacher_logits, uniforms, top_k=2)[0]
        tensor([1])
    """
    student_token, student_log_prob = sample_tokens(
        student_logits, uniforms[:, 0], temperature, top_p
    )
    # Drawn for every row with a number of its own, so that a draw does not depend on earlier
    # rejections.
    teacher_token, teacher_log_prob = sample_tokens(
        teacher_logits, uniforms[:, 1], temperature, top_p
    )
    student_token_logit = teacher_logits.gather(-1, student_token[:, None])
    # Counting the larger logits gives the rank without sorting the vocabulary.
    rank = (teacher_logits > student_token_logit).sum(-1)
    is_accepted = rank < top_k
    token = torch.where(is_accepted, student_token, teacher_token)
    return token, torch.where(is_accepted, student_log_prob, teacher_log_prob)


class Speculative(GenerativeScheme):
    """The student's text with tokens outside the teacher's top k replaced (Xu et al. 2025, Alg. 1).

    The objectives are token-level divergences on that text. With ``top_k`` equal to the vocabulary
    size the scheme is on_policy; with ``top_k`` 1 the text is the teacher's.
    """

    card = Card(
        "Speculative Knowledge Distillation: Bridging the Teacher-Student Gap Through Interleaved "
        "Sampling",
        "https://arxiv.org/abs/2410.11325",
        "ICLR",
        2025,
        source="online",
        algorithms=("adaptive",),
        tasks=("language",),
        labels=("single",),
        equation=r"y_i \sim p^s, \; y_i \leftarrow y'_i \sim p^t \text{ if } "
        r"y_i \notin \mathrm{top}_K(p^t); \quad \min_s D(p^t \Vert p^s)(y | x)",
        use="For a student too weak for on_policy, whose own text would be nonsense without useful "
        "teacher targets. As the student learns, its share of the text grows.",
        pitfalls="Both networks generate, so a step costs more than one of on_policy. A small "
        "top_k gives nearly the teacher's text, a large one nearly the student's. The paper uses "
        "25 of about 256,000 tokens.",
        deviations="The teacher checks each token at once. The paper checks several proposed "
        "tokens in one forward pass, which gives the same texts.",
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        top_k: Annotated[
            int,
            Ge(1),
            Doc("number of most likely teacher tokens; a student token among them is accepted"),
        ] = 25,
        sampling: SamplingOption = Sampling(),
    ):
        super().__init__(
            student,
            teacher,
            objectives,
            sampling,
        )
        if ratios(self.objectives):
            raise ValueError(
                "scheme: truncated_importance needs the distribution that a token is sampled from. "
                "Expected texts of one network, got texts of student and teacher. Leave out "
                "sample_weight, or use on_policy"
            )
        self.top_k = top_k

    def before_step(self, batch: Batch) -> Batch:
        def choose(logits: Sequence[Tensor], uniforms: Tensor) -> tuple[Tensor, Tensor]:
            student_logits, teacher_logits = logits
            return sample_interleaved(
                student_logits,
                teacher_logits,
                uniforms,
                self.top_k,
                *self.sampling.distribution(batch),
            )

        assert self.teacher is not None
        with side_effect_free(self.student):
            return self.generate_with(batch, [self.student, self.teacher], choose)

    def step(self, batch: Batch) -> Iterator[Update]:
        yield self.compute_losses(batch)
