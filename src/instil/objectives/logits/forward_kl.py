"""Forward KL divergence of tokens, which covers all modes of the teacher."""

from __future__ import annotations

from torch import Tensor

from instil.core import Batch, Card, Positive, check_bounds
from instil.functional.tokens.divergence import reduce_tokens, token_divergence
from instil.functional.tokens.heads import Signal
from instil.functional.tokens.terms import Divergence, forward_kl
from instil.objectives.bases.token_objective import TokenObjective


@check_bounds
def forward_kl_loss(
    student_logits: Signal,
    teacher_logits: Signal,
    temperature: Positive = 1.0,
    scale: bool = True,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """KL(teacher || student) of each token (Kim & Rush 2016, Eq. 6; Hinton et al. 2014).

    Equation 6 minus the teacher's entropy, at the temperature of Hinton et al. Memory does not
    grow with tokens times vocabulary if both sides are projections.

    Args:
        student_logits: student logits (..., V), or a projection (hidden states and head).
        teacher_logits: teacher logits (..., V), or a projection.
        temperature: softmax temperature, > 0.
        scale: multiply by ``temperature ** 2``.
        weight: weight of each token (...), 0 for tokens that do not count.
        reduction: ``"mean"`` over the tokens that count, or ``"none"``.

    Returns:
        Scalar, or (...) for ``reduction="none"``.

    Raises:
        ValueError: if tokens or classes differ.

    Example:
        >>> import torch
        >>> forward_kl_loss(torch.zeros(2, 3), torch.eye(3)[:2])
        tensor(0.1233)
    """
    values = token_divergence(student_logits, teacher_logits, forward_kl, temperature, weight)
    return reduce_tokens(values * temperature**2 if scale else values, weight, reduction)


class ForwardKL(TokenObjective):
    """KL(teacher || student): the student covers every class that the teacher considers possible.

    Logits are (..., V), or projections.
    """

    card = Card(
        "Sequence-Level Knowledge Distillation (word-level)",
        "https://arxiv.org/abs/1606.07947",
        "EMNLP",
        2016,
        source="logits",
        tasks=("classification", "language"),
        labels=("single",),
        published_weight=1.0,
        weight_setting="torchtune, Llama 3, from 8B to 1B: 0.5 for both losses",
        deviations="The paper's word-level loss is a cross-entropy. Here the teacher's entropy is "
        "subtracted, which keeps the gradient and makes the value 0 at a match; torchtune and "
        "DistiLLM do not subtract it. The default temperature is 1, as is usual for language "
        "models; kd has 2.",
        equation=r"T^2 \sum_v p^t_v \log \frac{p^t_v}{p^s_v}",
        use="The first method to try between language models with one vocabulary, on given text. "
        "With projections (hidden states and head) of both sides the memory does not grow with "
        "tokens times vocabulary.",
        pitfalls="A small student spreads over all modes of the teacher, and then generates text "
        "that neither model finds probable. reverse_kl or jsd on the student's own text avoids "
        "this. Divide published weights of code that averages over the vocabulary by its size.",
    )

    def term(self, batch: Batch) -> Divergence:
        return forward_kl
