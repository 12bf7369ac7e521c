"""Direct preference distillation: preferred texts against rejected ones, relative to a teacher."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated

import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Doc

from instil.cards import at_progress
from instil.core import (
    UNLABELLED,
    Batch,
    Card,
    NonNegative,
    Objective,
    Objectives,
    Outputs,
    Positive,
    Scheme,
    Teacher,
    Update,
    mean,
)
from instil.functional.token_log_probs import chunked_log_probs
from instil.functional.tokens.signals import token_role
from instil.generation.options import Sampling
from instil.items.prefixed_rows import REJECTED, prefixed_rows
from instil.schemes.bases.common_vocabulary import common_vocabulary


def dpkd_loss(
    student_preferred: Tensor,
    student_rejected: Tensor,
    teacher_preferred: Tensor,
    teacher_rejected: Tensor,
    beta: float = 0.1,
) -> Tensor:
    """Direct preference distillation loss of pairs of texts (Li et al. 2024).

    ``-log sigmoid(beta * margin)``, where the margin is the difference of the student's
    log-probability ratios to the teacher on the preferred and on the rejected text. It is the loss
    of DPO (Rafailov et al. 2023) with the teacher as the reference.

    Args:
        student_preferred: student log-probabilities of the preferred texts (N,).
        student_rejected: student log-probabilities of the rejected texts (N,).
        teacher_preferred: teacher log-probabilities of the preferred texts (N,).
        teacher_rejected: teacher log-probabilities of the rejected texts (N,).
        beta: scale of the margin, > 0.

    Returns:
        One value per pair (N,).

    Example:
        >>> import torch
        >>> student, teacher = torch.tensor([[-3.0, -2.0], [-1.0, -6.0]])
        >>> dpkd_loss(student[:1], student[1:], teacher[:1], teacher[1:], beta=0.5)
        tensor([3.0486])
    """
    margin = (student_preferred - teacher_preferred) - (student_rejected - teacher_rejected)
    return -F.logsigmoid(beta * margin)


class DPKD(Scheme):
    """Training on pairs of a preferred and a rejected text (Li et al. 2024).

    The objectives, such as cross_entropy and forward_kl, apply to the preferred texts. The loss
    ``preference`` raises the probability of the preferred text against that of the rejected one,
    both relative to the teacher's. Rejected texts have keys that begin with ``rejected_``.
    """

    card = Card(
        "Direct Preference Knowledge Distillation for Large Language Models",
        "https://arxiv.org/abs/2406.19774",
        "arXiv",
        2024,
        source="offline",
        algorithms=("contrastive",),
        tasks=("language",),
        labels=("single",),
        tags=("changed_inputs",),
        equation=r"-\log \sigma\left(\beta \log \frac{p^s(y^+ | x)}{p^t(y^+ | x)} - "
        r"\beta \log \frac{p^s(y^- | x)}{p^t(y^- | x)}\right)",
        use="For preference pairs, such as those of DPO, and a teacher that is better than the "
        "student. The rejected texts show mistakes that the preferred ones cannot show.",
        pitfalls="The loss compares two texts and does not hold the probability of either up, so "
        "combine it with cross_entropy or forward_kl, and check that generated texts stay as "
        "good. Long texts have large margins; `per_token` divides by the number of tokens and "
        "needs a larger `beta`. The head of the student runs once more in the backward pass.",
        deviations="The pairs are part of the data. In the paper, the teacher's text is preferred "
        "to the student's, as in `dpkd_written`. In the authors' code the loss compares the "
        "most likely tokens of both networks at each position of the data's text.",
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        beta: Annotated[
            Positive, Doc("scale of the margin; a larger one is satisfied by a smaller margin")
        ] = 0.1,
        per_token: Annotated[
            bool, Doc("divide the log-probability of a text by its number of tokens")
        ] = False,
        preference_weight: Annotated[NonNegative, Doc("weight of the loss ``preference``")] = 1.0,
    ):
        super().__init__(student, teacher, objectives)
        self.beta = beta
        self.per_token = per_token
        self.preference_weight = preference_weight
        # Number of tokens that both networks have; ``build`` sets it.
        self.vocabulary: int | None = None
        self.teacher_role = "logits"

    def build(self, batch: Batch) -> None:
        if self.teacher is None:
            raise ValueError(
                "dpkd needs a teacher. Expected a network that rates both texts of a pair, got None"
            )
        if f"{REJECTED}input_ids" not in batch:
            raise ValueError(
                f"dpkd needs preference pairs. Expected '{REJECTED}input_ids' in the batch, got "
                f"{', '.join(batch)}. Set data.preferences=true for the source chat, or "
                "data.rationale=preference for text and arithmetic"
            )
        if "teacher_input_ids" in batch:
            raise ValueError(
                "teacher.tokenizer: dpkd compares the probabilities of texts. Expected one "
                "tokenizer for student and teacher. Leave teacher.tokenizer out"
            )
        outputs = self.forward_both(batch)
        self.vocabulary = common_vocabulary(outputs, Sampling())
        self.teacher_role = token_role(outputs[1])
        super().build(batch)

    def teacher_roles(self) -> set[str]:
        return super().teacher_roles() | {self.teacher_role}

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        return super().counts(batch) | {"preference": has_both_texts(batch).sum()}

    def step(self, batch: Batch) -> Iterator[Update]:
        yield preference_update(
            self, batch, self.vocabulary, self.beta, self.per_token, self.preference_weight
        )


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
