"""Unbiased estimate of the forward KL divergence from sampled classes, in constant memory."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from annotated_types import Ge
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, batch_size
from instil.functional.keyed_random import keyed_uniform
from instil.functional.tokens.chunks import chunked_loss
from instil.functional.tokens.divergence import reduce_tokens
from instil.functional.tokens.heads import Signal
from instil.functional.tokens.sampled import SampledForwardKL
from instil.functional.tokens.signals import (
    as_constant,
    require_same_tokens,
    require_teacher_tokens,
    token_shape,
)
from instil.objectives.bases.token_objective import TokenObjective, Vocabulary
from instil.roles import Sampled


def sampled_kd_loss(
    student_logits: Signal,
    teacher_samples: Sampled,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Sampled knowledge distillation loss (Anshumann et al. 2025).

    Mean of ``w * (log p - log q)`` over the sampled classes of each token, with the teacher
    probability ``p``, the student probability ``q`` and the importance weight ``w = p / proposal``.
    Its expectation is KL(teacher || student), for the value and for the gradient.

    Args:
        student_logits: logits (..., V), or a projection (hidden states and head).
        teacher_samples: sampled classes (..., n) with the teacher's log-probabilities.
        weight: weight of each token (...), 0 for tokens that do not count.
        reduction: ``"mean"`` over the tokens that count, or ``"none"``.

    Returns:
        Scalar, or (...) for ``reduction="none"``.

    Raises:
        ValueError: if the tokens differ.

    Example:
        >>> import torch
        >>> from instil.roles import Sampled
        >>> ids = torch.tensor([[0, 0, 2], [1, 1, 1]])
        >>> teacher = Sampled(ids, torch.eye(3)[:2].log_softmax(-1).gather(-1, ids))
        >>> sampled_kd_loss(torch.zeros(2, 3), teacher)
        tensor(0.3805)
    """
    require_teacher_tokens(student_logits, teacher_samples.ids.shape[:-1])
    values = chunked_loss(student_logits, SampledForwardKL(teacher_samples, 1.0), weight=weight)
    return reduce_tokens(values, weight, reduction)


class SampledKD(TokenObjective):
    """Forward KL divergence estimated from classes sampled by the teacher.

    A record of samples is as small as one of the top K classes, and the estimate is unbiased. Reads
    ``sampled`` (recorded, any number of samples). From a live teacher's logits or projection it
    samples by seed, step and sample index.
    """

    card = Card(
        "Sparse Logit Sampling: Accelerating Knowledge Distillation in LLMs",
        "https://arxiv.org/abs/2503.16870",
        "ACL",
        2025,
        source="logits",
        tasks=("classification", "language"),
        labels=("single",),
        deviations="The log-probabilities of the sampled classes are subtracted, so the value "
        "estimates the KL divergence and not the cross-entropy. The gradient is the same.",
        equation=r"\frac{1}{n} \sum_{i=1}^n w_i \log \frac{p^t_{v_i}}{p^s_{v_i}}, \quad v_i "
        r"\sim \pi, \quad w_i = p^t_{v_i} / \pi_{v_i}",
        use="For a recorded teacher with a large vocabulary, where top_k would drop a long "
        "tail. In the paper, 50 samples per token are enough.",
        pitfalls="A single value is noisy and may be negative; only the mean over tokens is "
        "meaningful. Other divergences cannot be estimated from these samples.",
    )
    needs: ClassVar = {
        "student": (("projection", "logits"),),
        "teacher": (("sampled", "projection", "logits"),),
    }

    def __init__(
        self,
        draws: Annotated[
            int, Ge(1), Doc("number of classes sampled per token from a live teacher")
        ] = 50,
        vocabulary: Annotated[
            Vocabulary, Doc("number of classes without padding; None: all classes")
        ] = None,
    ):
        super().__init__(1.0, False, vocabulary)
        self.draws = draws

    def rejected_roles(self) -> dict[str, str]:
        """Reason why each other signal cannot satisfy the needs."""
        return {
            "top": "top classes are not random samples, so the estimate would be biased: use top_k",
            "text": "text holds one sampled token per position without its probability: "
            "use cross_entropy",
        }

    def values(self, student_logits: Signal, teacher_signal: Any, batch: Batch) -> Tensor:
        if isinstance(teacher_signal, Sampled):
            require_teacher_tokens(student_logits, teacher_signal.ids.shape[:-1])
            target = SampledForwardKL(teacher_signal, 1.0)
        else:
            require_same_tokens(student_logits, teacher_signal, self.vocabulary)
            positions = token_shape(student_logits).numel() // batch_size(batch)
            # Keyed by sample and step: the samples do not depend on how the batch is split.
            uniforms = keyed_uniform(
                batch, positions * self.draws, f"{self.stream}.classes"
            ).reshape(-1, self.draws)
            target = SampledForwardKL(as_constant(teacher_signal, self.vocabulary), 1.0, uniforms)
        return chunked_loss(
            student_logits, target, weight=self.weight(batch), vocabulary=self.vocabulary
        )
