"""Losses of schemes on pairs of a preferred and a rejected text."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor
from typing_extensions import Doc

from instil.cards import at_progress
from instil.core import UNLABELLED, Batch, NonNegative, Outputs, Positive, Scheme, Update, mean
from instil.functional.preferences import dpkd_loss
from instil.functional.token_log_probs import chunked_log_probs
from instil.functional.tokens.signals import token_role
from instil.items.prefixed_rows import REJECTED, prefixed_rows

Beta = Annotated[
    Positive, Doc("scale of the margin; a larger one is satisfied by a smaller margin")
]
PerToken = Annotated[bool, Doc("divide the log-probability of a text by its number of tokens")]
PreferenceWeight = Annotated[NonNegative, Doc("weight of the loss ``preference``")]


def preference_update(
    scheme: Scheme,
    batch: Batch,
    vocabulary: int | None,
    beta: float,
    per_token: bool,
    weight: float,
) -> Update:
    """Losses of the objectives on preferred texts, and the loss ``preference`` of the pairs.

    Args:
        scheme: scheme with a teacher.
        batch: preferred texts, and rejected ones under keys that begin with ``rejected_``.
        vocabulary: number of tokens that both networks have; None for all.
        beta: scale of the margin.
        per_token: whether the log-probability of a text is divided by its number of tokens.
        weight: weight of the loss ``preference``.
    """
    student, teacher = scheme.forward_both(batch)
    update: Update = scheme.objectives(student, teacher, batch)
    preferred = _text_log_probs(student, teacher, batch, vocabulary, per_token)
    del student, teacher
    rows = prefixed_rows(batch, REJECTED)
    rejected = _text_log_probs(*scheme.forward_both(rows), rows, vocabulary, per_token)
    values = dpkd_loss(
        preferred[0], rejected[0], preferred[1], rejected[1], at_progress(beta, batch)
    )
    loss = mean(values, has_both_texts(batch))
    update.losses["preference"] = at_progress(weight, batch) * loss
    return update


def _text_log_probs(
    student: Outputs, teacher: Outputs, batch: Batch, vocabulary: int | None, per_token: bool
) -> tuple[Tensor, Tensor]:
    """Log-probabilities (N,) of the texts of a batch for student and teacher."""
    token = batch["label"].masked_fill(~batch["valid"], UNLABELLED)
    num_tokens = batch["valid"].sum(1).clamp_min(1) if per_token else 1
    of_student, of_teacher = (
        chunked_log_probs(side[token_role(side)], token, vocabulary).sum(1) / num_tokens
        for side in (student, teacher)
    )
    return of_student, of_teacher


def has_both_texts(batch: Batch) -> Tensor:
    """1 for each row (N,) with a preferred and a rejected text, else 0.

    Args:
        batch: preferred texts, and rejected ones under keys that begin with ``rejected_``.
    """
    both: Tensor = batch["valid"].any(1) & batch[f"{REJECTED}valid"].any(1)
    return both.float()
