"""Optimal transport between tokens ranked over a whole sequence, for teachers of any vocabulary."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from instil.core import Batch, Card, NonNegative, Outputs, Positive, full
from instil.functional.divergences import expectation
from instil.functional.tokens.spans import require_same_positions
from instil.objectives.bases.span_objective import SpanObjective

DEVIATION_EPSILON = 1e-4
APART = -1e4
"""Logarithm of a transport that does not happen; its exponential is 0 in every precision."""


def unit_deviation(logits: Tensor) -> Tensor:
    """Logits (..., V) divided by their standard deviation over the classes that are not -inf."""
    logits = full(logits)
    possible = logits.detach() > -torch.inf
    values = logits.masked_fill(~possible, 0.0)
    count = possible.sum(-1, keepdim=True)
    centred = (values - values.sum(-1, keepdim=True) / count).masked_fill(~possible, 0.0)
    variance = centred.square().sum(-1, keepdim=True) / (count - 1).clamp_min(1)
    # The square root has an infinite derivative at 0, where all logits are equal.
    return logits / (variance.clamp_min(DEVIATION_EPSILON**2).sqrt() + DEVIATION_EPSILON)


def rank_by_sequence(log_probs: Tensor, counted: Tensor, size: int) -> Tensor:
    """Log-probabilities of the likeliest tokens of each sequence, in one order for all positions.

    Args:
        log_probs: (N, T, V).
        counted: positions (N, T) that the ranks are taken over.
        size: number of ranks, at most V.

    Returns:
        (N, T, size), by decreasing sum of probabilities over the counted positions.
    """
    probs = log_probs.detach().exp().masked_fill(~counted[..., None], 0.0)
    index = probs.sum(1).topk(size, -1).indices
    return log_probs.gather(-1, index[:, None].expand(-1, log_probs.shape[1], -1))


def sequence_transport(
    student: Tensor, teacher: Tensor, counted: Tensor, epsilon: float, iterations: int
) -> Tensor:
    """Cost of the Sinkhorn transport of each position of the student: (N, T).

    Args:
        student: ranked probabilities (N, T, K).
        teacher: ranked probabilities (N, T, K).
        counted: positions (N, T) that take part; the others are transported to themselves.
        epsilon: entropic regularisation of the plan, > 0.
        iterations: number of row and column normalisations.
    """
    together = counted[:, :, None] & counted[:, None, :]
    cost = torch.cdist(student, teacher, p=1.0).masked_fill(~together, 0.0)
    itself = torch.eye(cost.shape[-1], dtype=torch.bool, device=cost.device)
    log_plan = (-cost / epsilon).masked_fill(~together & ~itself, APART)
    for _ in range(iterations):
        log_plan = log_plan.log_softmax(-1).log_softmax(-2)
    return (log_plan.exp() * cost).sum(-1)


def multilevel_terms(
    student: Tensor, teacher: Tensor, counted: Tensor, top_k: int, epsilon: float, iterations: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Absolute difference, logarithmic and Sinkhorn terms, each (N, T) or (N,).

    Args:
        student: log-probabilities (N, T, V), or (N, V) for sequences of one token.
        teacher: log-probabilities (N, T, V') or (N, V') of the same positions.
        counted: positions (N, T) or (N,) that count.
        top_k: number of ranks; the smaller vocabulary where that has fewer tokens.
        epsilon: entropic regularisation of the transport plan.
        iterations: number of row and column normalisations.
    """
    if student.ndim == 2:
        sides = student[:, None], teacher[:, None], counted[:, None]
        of_one_token = multilevel_terms(*sides, top_k, epsilon, iterations)
        return of_one_token[0][:, 0], of_one_token[1][:, 0], of_one_token[2][:, 0]
    size = min(top_k, student.shape[-1], teacher.shape[-1])
    log_student, log_teacher = (
        rank_by_sequence(side, counted, size) for side in (student, teacher)
    )
    probs, target = log_student.exp(), log_teacher.exp()
    transport = sequence_transport(probs, target, counted, epsilon, iterations)
    return (probs - target).abs().sum(-1), -expectation(target, log_student), transport


def multilevel_ot_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    top_k: int = 50,
    logarithmic: float = 0.1,
    sinkhorn: float = 0.1,
    temperature: float = 1.0,
    standardize: bool = True,
    epsilon: float = 0.1,
    iterations: int = 10,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Multi-level optimal transport loss (Cui et al. 2025).

    The vocabulary of each side is ranked by its probabilities summed over the sequence, and cut to
    ``top_k`` ranks. For each position the loss adds the absolute differences of the ranked
    probabilities, ``logarithmic`` times their cross-entropy, and ``sinkhorn`` times the cost of
    moving the position along the Sinkhorn transport between the sequences.

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
    student, teacher = (
        (_scaled(logits, standardize) / temperature).log_softmax(-1)
        for logits in (student_logits, teacher_logits)
    )
    weight = student.new_ones(student.shape[:-1]) if weight is None else weight
    terms = multilevel_terms(student, teacher, weight > 0, top_k, epsilon, iterations)
    values = terms[0] + logarithmic * terms[1] + sinkhorn * terms[2]
    if reduction == "none":
        return values
    return torch.where(weight > 0, values * weight, 0.0).sum() / weight.sum()


def _scaled(logits: Tensor, standardize: bool) -> Tensor:
    return unit_deviation(logits) if standardize else full(logits)


class MultilevelOT(SpanObjective):
    """Ranked probabilities of student and teacher agree, token by token and over each sequence.

    With a teacher of another tokenizer (``teacher.tokenizer``) a position is a span of bytes that
    both tokenizers end.

    ``top_k``: number of ranks that are compared.
    ``logarithmic``: weight of the cross-entropy of the ranked probabilities.
    ``sinkhorn``: weight of the transport cost between the positions of a sequence.
    ``temperature``: softmax temperature of both sides.
    ``standardize``: divide the logits of each position by their standard deviation first.
    ``epsilon``: entropic regularisation of the transport plan.
    ``iterations``: number of row and column normalisations of the plan.
    """

    relates_positions = True
    card = Card(
        "Multi-Level Optimal Transport for Universal Cross-Tokenizer Knowledge Distillation on Language Models",
        "https://arxiv.org/abs/2412.14528",
        "AAAI",
        2025,
        source="logits",
        tasks=("classification", "language"),
        labels=("single",),
        zero_at_match=False,
        deviations="The authors' code ranks the vocabulary over the whole batch; here each sequence has its own ranks, so that the loss does not "
        "depend on how the batch is cut. In the code the logarithmic term has student and teacher exchanged and takes a second softmax of the "
        "ranked probabilities, and so does the transport; here they are the probabilities themselves. The code multiplies the summed transport "
        "by 0.001; here it is a mean over the positions. Positions belong together that end at the same byte, as for uld.",
        equation=r"\sum_{r \le k} | p^t_{(r)} - p^s_{(r)} | - \beta \sum_{r \le k} p^t_{(r)} \log p^s_{(r)} + \gamma \sum_j P_{ij} \lVert p^s_i - "
        r"p^t_j \rVert_1",
        use="A teacher with another vocabulary: uld ranks the tokens of each position by themselves, here a rank is one token for a whole sequence, "
        "and the transport compares positions that are out of step.",
        pitfalls="The ranks do not know which token is which: keep the label's loss beside it (the paper weighs this one 0.15). The transport takes "
        "memory with the square of the length, and needs all logits of both sides at once.",
    )

    def __init__(
        self,
        top_k: Annotated[int, Ge(1)] = 50,
        logarithmic: NonNegative = 0.1,
        sinkhorn: NonNegative = 0.1,
        temperature: Positive = 1.0,
        standardize: bool = True,
        epsilon: Positive = 0.1,
        iterations: Annotated[int, Ge(1)] = 10,
    ):
        super().__init__()
        self.top_k, self.logarithmic, self.sinkhorn = top_k, logarithmic, sinkhorn
        self.temperature, self.standardize = temperature, standardize
        self.epsilon, self.iterations = epsilon, iterations

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        student_logits = _scaled(student["logits"], self.standardize)
        teacher_logits = _scaled(teacher["logits"], self.standardize)
        log_student, log_teacher = self.distributions(
            student_logits, teacher_logits, batch, self.temperature
        )
        weight = self.weight(batch)
        counted = (weight > 0).view(*weight.shape, *[1] * (log_student.ndim - 1 - weight.ndim))
        terms = multilevel_terms(
            log_student,
            log_teacher,
            counted.expand(log_student.shape[:-1]),
            self.top_k,
            self.epsilon,
            self.iterations,
        )
        return terms[0] + self.logarithmic * terms[1] + self.sinkhorn * terms[2]
