"""Optimal transport between ranked tokens of a sequence, for teachers with any vocabulary."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, NonNegative, Outputs, Positive, check_bounds, to_float32
from instil.functional.divergences import expectation
from instil.functional.tokens.spans import require_same_positions
from instil.objectives.bases.span_objective import SpanObjective

DEVIATION_EPSILON = 1e-4
NO_TRANSPORT = -1e4
"""Log of a plan entry without transport; its exponential is 0 in every precision."""


def unit_deviation(logits: Tensor) -> Tensor:
    """Logits (..., V) divided by their standard deviation over the classes that are not -inf."""
    logits = to_float32(logits)
    possible = logits.detach() > -torch.inf
    values = logits.masked_fill(~possible, 0.0)
    count = possible.sum(-1, keepdim=True)
    centred = (values - values.sum(-1, keepdim=True) / count).masked_fill(~possible, 0.0)
    variance = centred.square().sum(-1, keepdim=True) / (count - 1).clamp_min(1)
    # The square root has an infinite derivative at 0, where all logits are equal.
    return logits / (variance.clamp_min(DEVIATION_EPSILON**2).sqrt() + DEVIATION_EPSILON)


def rank_by_sequence(log_probs: Tensor, counted: Tensor, size: int) -> Tensor:
    """Log-probabilities of the top tokens of each sequence, in one order for all positions.

    Args:
        log_probs: (N, T, V).
        counted: positions (N, T) that determine the ranks.
        size: number of ranks, at most V.

    Returns:
        (N, T, size), by decreasing sum of probabilities over the counted positions.
    """
    # The ranks are constants, and only counted positions determine them.
    probs = log_probs.detach().exp().masked_fill(~counted[..., None], 0.0)
    index = probs.sum(1).topk(size, -1).indices
    return log_probs.gather(-1, index[:, None].expand(-1, log_probs.shape[1], -1))


def sequence_transport(
    student_probs: Tensor, teacher_probs: Tensor, counted: Tensor, epsilon: float, iterations: int
) -> Tensor:
    """Cost of the Sinkhorn transport of each student position.

    Args:
        student_probs: ranked probabilities (N, T, K).
        teacher_probs: ranked probabilities (N, T, K).
        counted: positions (N, T) that take part; each other position is transported to itself.
        epsilon: entropic regularisation of the plan, > 0.
        iterations: number of row and column normalisations.

    Returns:
        (N, T).
    """
    both_counted = counted[:, :, None] & counted[:, None, :]
    cost = torch.cdist(student_probs, teacher_probs, p=1.0).masked_fill(~both_counted, 0.0)
    # The diagonal of uncounted positions stays allowed, so that no row of the plan is empty.
    diagonal = torch.eye(cost.shape[-1], dtype=torch.bool, device=cost.device)
    log_plan = (-cost / epsilon).masked_fill(~both_counted & ~diagonal, NO_TRANSPORT)
    # In log space, because exp(-cost / epsilon) underflows for a small epsilon.
    for _ in range(iterations):
        log_plan = log_plan.log_softmax(-1).log_softmax(-2)
    return (log_plan.exp() * cost).sum(-1)


def multilevel_terms(
    log_student: Tensor,
    log_teacher: Tensor,
    counted: Tensor,
    top_k: int,
    epsilon: float,
    iterations: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Absolute difference, cross-entropy and Sinkhorn terms of the loss.

    Args:
        log_student: log-probabilities (N, T, V), or (N, V) for sequences of one token.
        log_teacher: log-probabilities (N, T, V') or (N, V') of the same positions.
        counted: positions (N, T) or (N,) that count.
        top_k: number of ranks, limited to the smaller vocabulary.
        epsilon: entropic regularisation of the transport plan.
        iterations: number of row and column normalisations.

    Returns:
        Three tensors (N, T) or (N,).
    """
    if log_student.ndim == 2:
        one_token = log_student[:, None], log_teacher[:, None], counted[:, None]
        terms = multilevel_terms(*one_token, top_k, epsilon, iterations)
        return terms[0][:, 0], terms[1][:, 0], terms[2][:, 0]
    size = min(top_k, log_student.shape[-1], log_teacher.shape[-1])
    ranked_student = rank_by_sequence(log_student, counted, size)
    ranked_teacher = rank_by_sequence(log_teacher, counted, size)
    student_probs = ranked_student.exp()
    teacher_probs = ranked_teacher.exp()
    transport = sequence_transport(student_probs, teacher_probs, counted, epsilon, iterations)
    difference = (student_probs - teacher_probs).abs().sum(-1)
    return difference, -expectation(teacher_probs, ranked_student), transport


@check_bounds
def multilevel_ot_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    top_k: Annotated[int, Ge(1)] = 50,
    logarithmic: NonNegative = 0.1,
    sinkhorn: NonNegative = 0.1,
    temperature: Positive = 1.0,
    standardize: bool = True,
    epsilon: Positive = 0.1,
    iterations: Annotated[int, Ge(1)] = 10,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Multi-level optimal transport loss (Cui et al. 2025).

    The vocabulary of each side is ranked by its probabilities summed over the sequence, and cut to
    ``top_k`` ranks. The loss of a position has three terms. The first is the absolute
    difference of the ranked probabilities. The second is ``logarithmic`` times their cross-entropy.
    The third is ``sinkhorn`` times the cost of the position in the Sinkhorn transport between the
    sequences.

    Args:
        student_logits: (N, T, V), or (N, V) for sequences of one token.
        teacher_logits: (N, T, V') or (N, V'), of the same positions.
        top_k: number of ranks, >= 1.
        logarithmic: weight of the cross-entropy of the ranked probabilities.
        sinkhorn: weight of the transport cost between the positions of a sequence.
        temperature: softmax temperature, > 0.
        standardize: divide the logits of each position by their standard deviation first.
        epsilon: entropic regularisation of the transport plan, > 0.
        iterations: number of row and column normalisations, >= 1.
        weight: weight of each position (N, T) or (N,), 0 for positions that do not count.
        reduction: ``"mean"`` over the positions that count, or ``"none"``.

    Returns:
        Scalar, or one value per position for ``reduction="none"``.

    Raises:
        ValueError: if the positions differ, the logits have another number of dimensions, or the
            reduction is unknown.

    Example:
        >>> import torch
        >>> multilevel_ot_loss(torch.zeros(1, 2, 3), torch.eye(4)[None, :2], standardize=False)
        tensor(0.5955)
    """
    require_same_positions(student_logits, teacher_logits)
    if student_logits.ndim not in (2, 3):
        expected = f"Expected (N, T, V) or (N, V), got {tuple(student_logits.shape)}."
        raise ValueError(f"student_logits: wrong number of dimensions. {expected}")
    if reduction not in ("mean", "none"):
        raise ValueError(f"reduction: unknown value. Expected 'mean' or 'none', got '{reduction}'.")
    log_student = (_scaled(student_logits, standardize) / temperature).log_softmax(-1)
    log_teacher = (_scaled(teacher_logits, standardize) / temperature).log_softmax(-1)
    weight = log_student.new_ones(log_student.shape[:-1]) if weight is None else weight
    terms = multilevel_terms(log_student, log_teacher, weight > 0, top_k, epsilon, iterations)
    values = terms[0] + logarithmic * terms[1] + sinkhorn * terms[2]
    if reduction == "none":
        return values
    return torch.where(weight > 0, values * weight, 0.0).sum() / weight.sum()


def _scaled(logits: Tensor, standardize: bool) -> Tensor:
    return unit_deviation(logits) if standardize else to_float32(logits)


class MultilevelOT(SpanObjective):
    """Optimal transport between ranked probabilities, per token and over each sequence.

    With a teacher that has another tokenizer (``teacher.tokenizer``), a position is a span of bytes
    that ends at a token boundary of both tokenizers.
    """

    card = Card(
        "Multi-Level Optimal Transport for Universal Cross-Tokenizer Knowledge Distillation on "
        "Language Models",
        "https://arxiv.org/abs/2412.14528",
        "AAAI",
        2025,
        source="logits",
        tasks=("classification", "language"),
        labels=("single",),
        zero_at_match=False,
        tags=("aligned_tokens", "related_positions"),
        deviations="The authors' code ranks the vocabulary over the whole batch. Here each "
        "sequence has its own ranks, so the loss does not depend on how the batch is split. In "
        "the code, the logarithmic term exchanges student and teacher and applies a second "
        "softmax to the ranked probabilities; so does the transport. Here they are the "
        "probabilities themselves. The code multiplies the summed transport by 0.001; here it "
        "is a mean over the positions. Positions that end at the same byte are compared, as in "
        "uld.",
        equation=r"\sum_{r \le k} | p^t_{(r)} - p^s_{(r)} | - \beta \sum_{r \le k} p^t_{(r)} "
        r"\log p^s_{(r)} + \gamma \sum_j P_{ij} \lVert p^s_i - p^t_j \rVert_1",
        use="A teacher with another vocabulary. uld ranks the tokens of each position "
        "independently. Here a rank is one token for a whole sequence, and the transport "
        "compares positions that are out of step.",
        pitfalls="The ranks do not identify the tokens, so combine the loss with the label loss "
        "(the paper gives this loss the weight 0.15). The memory of the transport grows with "
        "the square of the length. The loss needs all logits of both sides at once.",
    )

    def __init__(
        self,
        top_k: Annotated[int, Ge(1), Doc("number of ranks that are compared")] = 50,
        logarithmic: Annotated[NonNegative, Doc("weight of the ranked cross-entropy")] = 0.1,
        sinkhorn: Annotated[NonNegative, Doc("weight of the transport cost")] = 0.1,
        temperature: Annotated[Positive, Doc("softmax temperature of both sides")] = 1.0,
        standardize: Annotated[bool, Doc("divide logits by their standard deviation first")] = True,
        epsilon: Annotated[Positive, Doc("entropic regularisation of the transport plan")] = 0.1,
        iterations: Annotated[int, Ge(1), Doc("number of normalisations of the plan")] = 10,
    ):
        super().__init__()
        self.top_k = top_k
        self.logarithmic = logarithmic
        self.sinkhorn = sinkhorn
        self.temperature = temperature
        self.standardize = standardize
        self.epsilon = epsilon
        self.iterations = iterations

    def forward(self, student_outputs: Outputs, teacher_outputs: Outputs, batch: Batch) -> Tensor:
        log_student, log_teacher = self.distributions(
            _scaled(student_outputs["logits"], self.standardize),
            _scaled(teacher_outputs["logits"], self.standardize),
            batch,
            self.temperature,
        )
        weight = self.weight(batch)
        # One weight per sample holds for all positions of the sample.
        counted = (weight > 0).view(*weight.shape, *[1] * (log_student.ndim - 1 - weight.ndim))
        mask = counted.expand(log_student.shape[:-1])
        terms = multilevel_terms(
            log_student, log_teacher, mask, self.top_k, self.epsilon, self.iterations
        )
        return terms[0] + self.logarithmic * terms[1] + self.sinkhorn * terms[2]
