"""Reverse KL divergence estimated from tokens that the student sampled, in constant memory."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, NonNegative, check_bounds
from instil.functional.tokens.chunks import chunked_loss
from instil.functional.tokens.divergence import reduce_tokens
from instil.functional.tokens.heads import Signal
from instil.functional.tokens.sampled import SampledReverseKL
from instil.functional.tokens.signals import as_constant, require_same_tokens, token_shape
from instil.items import Items
from instil.objectives.bases.token_objective import TokenObjective, Vocabulary


@check_bounds
def opd_loss(
    student_logits: Signal,
    teacher_logits: Signal,
    sampled_ids: Tensor,
    prefix: NonNegative = 0.0,
    weight: Tensor | None = None,
    vocabulary: int | None = None,
    reduction: str = "mean",
) -> Tensor:
    """On-policy distillation loss: ``(log q - log p) ** 2 / 2`` of the sampled tokens.

    ``q`` and ``p`` are the probabilities of student and teacher. Over the student's samples, the
    expected gradient is that of KL(student || teacher). In contrast, the expected gradient of
    ``log q - log p`` is 0, and that of ``p / q - 1 + log q - log p`` belongs to the forward KL.

    Args:
        student_logits: logits (..., V), or a projection (hidden states and head).
        teacher_logits: logits (..., V), or a projection.
        sampled_ids: token indices (...) sampled from the student.
        prefix: additional weight of early tokens, see ``prefix_weights``; 0: equal weights.
        weight: weight of each token (...), 0 for tokens that do not count.
        vocabulary: number of classes without padding; None: all classes.
        reduction: ``"mean"`` over the tokens that count, or ``"none"``.

    Returns:
        Scalar, or (...) for ``reduction="none"``.

    Raises:
        ValueError: if the tokens or the classes differ.

    Example:
        >>> import torch
        >>> opd_loss(torch.zeros(2, 3), torch.eye(3)[:2], torch.tensor([0, 2]))
        tensor(0.1261)
    """
    require_same_tokens(student_logits, teacher_logits, vocabulary)
    positions = token_shape(student_logits)
    if sampled_ids.shape != positions:
        raise ValueError(
            "sampled_ids: one token index per position is required. "
            f"Expected shape {tuple(positions)}, got {tuple(sampled_ids.shape)}."
        )
    # -100 is not a valid index; such tokens must have weight 0.
    ids = sampled_ids.clamp_min(0).reshape(-1)
    target = SampledReverseKL(
        as_constant(teacher_logits, vocabulary), ids, torch.ones(ids.shape, device=ids.device)
    )
    if prefix > 0:
        # The weights depend on the gap of all tokens of a row, which takes one more pass.
        with torch.no_grad():
            values = chunked_loss(student_logits, target, weight=weight, vocabulary=vocabulary)
            gap = (2 * values).sqrt()
        rows = gap.reshape(gap.shape if gap.ndim > 1 else (-1, 1))
        target.factor = prefix_weights(rows, torch.ones_like(rows), prefix).reshape(-1)
    values = chunked_loss(student_logits, target, weight=weight, vocabulary=vocabulary)
    return reduce_tokens(values, weight, reduction)


def prefix_weights(
    gap: Tensor, mask: Tensor, strength: float = 1.0, epsilon: float = 1e-8
) -> Tensor:
    """Token weights that decrease along a row with the accumulated log-probability gap.

    The weight is ``1 + strength * (1 - s)``, where ``s`` is the share of the row's sum of ``gap``
    that precedes the token.

    Args:
        gap: absolute log-probability differences (N, T); no gradient passes through them.
        mask: positions (N, T) that count.
        strength: additional weight of the first token.
        epsilon: lower bound of the sum.

    Returns:
        Weights (N, T).
    """
    # Detached: the weights scale the loss and are not minimized themselves.
    size = torch.where(mask.bool(), gap.detach().abs(), 0.0)
    # Exclusive: the gap of a token itself does not lower its own weight.
    share = (size.cumsum(1) - size) / size.sum(1, keepdim=True).clamp_min(epsilon)
    return 1 + strength * (1 - share)


class OPD(TokenObjective):
    """Single-sample estimate of the reverse KL divergence; the labels are sampled by the student.

    Reads logits (..., V) or projections.
    """

    items = Items(labelled=True)
    card = Card(
        "On-Policy Distillation",
        "https://thinkingmachines.ai/blog/on-policy-distillation/",
        "Thinking Machines Lab",
        2025,
        source="logits",
        tasks=("classification", "language"),
        labels=("single",),
        deviations="The loss is half a square. Its gradient is that of the authors' policy "
        "gradient with log p - log q as advantage, and it is zero at a match. The weights of "
        "prefix are those of IW-OPD in TRL.",
        equation=r"\tfrac{1}{2} \big(\log p^s_y - \log p^t_y\big)^2, \quad y \sim p^s",
        use="On text of the student, if the teacher only returns the probability of each "
        "written token. With whole distributions, reverse_kl is the same loss without the noise.",
        pitfalls="Use it only with the scheme on_policy, whose texts are all sampled by the "
        "student, at temperature 1 from all tokens. With another temperature or with top_p below "
        "1, the expected gradient is not that of the reverse KL. On given text it is not a "
        "divergence, and it lowers the student's probability of a label to the teacher's.",
    )

    def __init__(
        self,
        prefix: Annotated[
            NonNegative,
            Doc(
                "additional weight of the first tokens of a row, where the student is still "
                "close to the teacher"
            ),
        ] = 0.0,
        vocabulary: Annotated[
            Vocabulary, Doc("number of classes without padding; None: all classes")
        ] = None,
    ):
        super().__init__(1.0, False, vocabulary)
        self.prefix = prefix

    def values(self, student_logits: Signal, teacher_logits: Any, batch: Batch) -> Tensor:
        weight = self.weight(batch)
        return opd_loss(
            student_logits,
            teacher_logits,
            batch["label"],
            self.prefix,
            weight,
            self.vocabulary,
            "none",
        )
