"""Larger of two alpha-divergences for each token."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, Positive, check_bounds
from instil.functional.tokens.divergence import reduce_tokens, token_divergence
from instil.functional.tokens.heads import Signal
from instil.functional.tokens.terms import Divergence, TokenDistribution
from instil.objectives.bases.token_objective import TokenObjective, Vocabulary

NEAR_A_LIMIT = 1e-3
"""Distance from 0 and 1 below which an alpha-divergence is taken as its limit."""
LARGEST_LOG_CLIP = 80.0
"""Logarithm of the largest clip: its exponential and the sums over classes stay in float32."""


def clipped_alpha_divergence(
    student: TokenDistribution, teacher: TokenDistribution, alpha: float, clip: float
) -> tuple[Tensor, Tensor]:
    """Alpha-divergence of teacher p and student q, and the weights of its surrogate gradient.

    The gradient of the divergence is that of ``-sum(weights * log q)`` with constant weights. Both
    the value and the weights clip ``(p / q) ** alpha``; the limit at ``alpha = 1``, the forward KL
    divergence, is not clipped, as in the authors' code.

    Args:
        student: distributions of n items over V classes.
        teacher: distributions of the same items.
        alpha: order of the divergence.
        clip: largest value of ``(p / q) ** alpha``, or of ``p / q`` at ``alpha = 0``.

    Returns:
        The divergence (n,) and the weights (n, V).
    """
    q = student.probability
    log_ratio = teacher.log - student.log
    log_clip = min(math.log(clip), LARGEST_LOG_CLIP)
    if abs(alpha - 1) < NEAR_A_LIMIT:
        return torch.linalg.vecdot(teacher.probability, log_ratio), teacher.probability
    if abs(alpha) < NEAR_A_LIMIT:
        # At order 0 the clip bounds the logarithm of the ratio, for which no exponential is needed.
        log_ratio = log_ratio.clamp(max=log_clip)
        return -torch.linalg.vecdot(q, log_ratio), (log_ratio - 1).mul_(q)
    scale = alpha * (alpha - 1)
    # Clip in log space, before the exponential can overflow.
    powers = (log_ratio * alpha).clamp_(max=log_clip).exp_()
    value = torch.linalg.vecdot(q, (powers - 1).div_(scale))
    return value, powers.div_(alpha).add_(1 / scale).mul_(q)


def larger_alpha_divergence(alpha_min: float, alpha_max: float, clip: float) -> Divergence:
    """Larger of two clipped alpha-divergences for each item (Wang et al. 2021).

    Args:
        alpha_min: order of the first divergence.
        alpha_max: order of the second divergence.
        clip: largest value of ``(p / q) ** alpha``.

    Returns:
        Function of student and teacher distributions that returns values and gradients.
    """

    def term(student: TokenDistribution, teacher: TokenDistribution) -> tuple[Tensor, Tensor]:
        low, low_weights = clipped_alpha_divergence(student, teacher, alpha_min, clip)
        high, high_weights = clipped_alpha_divergence(student, teacher, alpha_max, clip)
        # The gradient is that of the larger value only, as for a maximum.
        weights = torch.where((low > high).unsqueeze(-1), low_weights, high_weights)
        return torch.maximum(low, high), student.softmax_backward(weights.neg())

    return term


@check_bounds
def alphanet_loss(
    student_logits: Signal,
    teacher_logits: Signal,
    alpha_min: float = -1.0,
    alpha_max: float = 1.0,
    clip: Positive = 5.0,
    temperature: Positive = 1.0,
    scale: bool = True,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Adaptive alpha-divergence of teacher p and student q (Wang et al. 2021).

    The alpha-divergence is ``(sum(q (p / q)^alpha) - 1) / (alpha (alpha - 1))``; it is the forward
    KL divergence at 1 and the reverse one at 0. Each token takes the larger of the divergences of
    ``alpha_min`` and ``alpha_max``. The gradient treats the
    clipped powers of ``p / q`` as constants. It is not the derivative of the value where the clip
    is active.

    Args:
        student_logits: student logits (..., V), or a projection (hidden states and head).
        teacher_logits: teacher logits (..., V), or a projection.
        alpha_min: order of the first divergence; a negative order penalises a student that is
            confident where the teacher is not.
        alpha_max: order of the second divergence; a positive order penalises a student that
            misses classes of the teacher.
        clip: largest value of ``(p / q) ** alpha``, > 0.
        temperature: softmax temperature, > 0.
        scale: multiply by ``temperature ** 2``.
        weight: weight of each token (...), 0 for tokens that do not count.
        reduction: ``"mean"`` over the tokens that count, or ``"none"``.

    Returns:
        Scalar, or (...) for ``reduction="none"``.

    Raises:
        ValueError: if tokens or classes differ, an order is not finite, or ``clip`` is not above 0.

    Example:
        >>> import torch
        >>> alphanet_loss(torch.zeros(2, 3), 3 * torch.eye(3)[:2])
        tensor(1.2278)
    """
    if not (math.isfinite(alpha_min) and math.isfinite(alpha_max)):
        expected = f"Expected finite numbers, got {alpha_min} and {alpha_max}."
        raise ValueError(f"alpha_min, alpha_max: an order is not finite. {expected}")
    term = larger_alpha_divergence(alpha_min, alpha_max, clip)
    values = token_divergence(student_logits, teacher_logits, term, temperature, weight)
    return reduce_tokens(values * temperature**2 if scale else values, weight, reduction)


class AlphaNet(TokenObjective):
    """Larger of two alpha-divergences: penalises both over- and underestimated classes.

    Logits are (..., V), or projections.
    """

    card = Card(
        "AlphaNet: Improved Training of Supernets with Alpha-Divergence",
        "https://arxiv.org/abs/2102.07954",
        "ICML",
        2021,
        source="logits",
        tasks=("classification", "language"),
        labels=("single",),
        deviations="The authors' code returns the surrogate whose gradient is used; here the value "
        "is the larger divergence and the gradient is the same. The paper trains the subnets of a "
        "supernet with the largest subnet as teacher; here any teacher may be used. As in the "
        "code, the order 1 is not clipped.",
        equation=r"T^2 \max\big( D_{\alpha_-}(p^t \Vert p^s), D_{\alpha_+}(p^t \Vert p^s) \big), "
        r"\quad D_\alpha(p \Vert q) = \frac{1}{\alpha (\alpha - 1)} \Big( \sum_v q_v \min\big( "
        r"(p_v / q_v)^\alpha, c \big) - 1 \Big)",
        use="Students that share one set of weights, or a teacher that is itself uncertain. "
        "forward_kl alone lets the student overestimate the teacher's uncertainty, and reverse_kl "
        "alone lets it underestimate it.",
        pitfalls="The gradient treats the clipped ratios as constants, so the value may rise while "
        "the surrogate falls. A large clip with a negative order gives large gradients where the "
        "teacher excludes a class.",
    )

    def __init__(
        self,
        alpha_min: Annotated[
            float,
            Doc("order of the divergence that penalises overconfidence of the student"),
        ] = -1.0,
        alpha_max: Annotated[
            float, Doc("order of the divergence that penalises a student that misses classes")
        ] = 1.0,
        clip: Annotated[
            Positive,
            Doc("largest value of (p / q)^alpha for teacher p and student q"),
        ] = 5.0,
        temperature: Annotated[Positive, Doc("softmax temperature of both sides")] = 1.0,
        scale: Annotated[bool, Doc("multiply the loss by temperature²")] = True,
        vocabulary: Annotated[
            Vocabulary,
            Doc(
                "number of classes without padding; later ones have probability 0 on both sides. "
                "None: all"
            ),
        ] = None,
    ):
        super().__init__(temperature, scale, vocabulary)
        self.alpha_min = alpha_min
        self.alpha_max = alpha_max
        self.clip = clip

    def term(self, batch: Batch) -> Divergence:
        return larger_alpha_divergence(self.alpha_min, self.alpha_max, self.clip)
