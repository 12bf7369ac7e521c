"""More of what the teacher writes, less of what the student does: one divergence for each text of a pair."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated

import torch
from annotated_types import Gt, Lt
from torch import Tensor, nn

from instil.core import (
    UNLABELLED,
    Batch,
    Card,
    NonNegative,
    Objective,
    Objectives,
    Teacher,
    Update,
    at_progress,
    drop_unlabelled_gradient,
    mean,
    to_float32,
)
from instil.functional.logits import clamp_to_finite
from instil.schemes.bases.writer import Share, Token, Tokens
from instil.schemes.language.sequence_level import SequenceLevel

KEPT = 0.9
"""Of the running gaps at each step."""
LEAST, NOTHING = 0.01, 1e-5
Text = tuple[Tensor, Tensor, Tensor]
"""The student's log-probabilities (N, T, V), the teacher's, and the tokens (N, T) that follow, -100 where none is compared."""


def skewed_forward(log_q: Tensor, log_p: Tensor, token: Tensor, skew: Tensor) -> Tensor:
    """KL(p || a p + (1 - a) q) of teacher p and student q (Ko et al. 2024, Eq. 4), mean over the tokens of each row: (N,).

    Log-probabilities (N, T, V), ``token`` (N, T) -100 where none is compared, ``skew`` a (N,).
    """
    share = skew[:, None, None]
    log_q, log_p = clamp_to_finite(log_q), clamp_to_finite(log_p)
    mixed = torch.logaddexp(log_p + share.log(), log_q + (1 - share).log())
    return row_mean((log_p.exp() * (log_p - mixed)).sum(-1), token)


def skewed_reverse(log_q: Tensor, log_p: Tensor, token: Tensor, skew: Tensor) -> Tensor:
    """KL(q || (1 - a) p + a q), no gradient through the second q, mean over the tokens of each row: (N,)."""
    share = skew[:, None, None]
    log_q, log_p = clamp_to_finite(log_q), clamp_to_finite(log_p)
    mixed = torch.logaddexp(log_p + (1 - share).log(), log_q.detach() + share.log())
    return row_mean((log_q.exp() * (log_q - mixed)).sum(-1), token)


def row_mean(values: Tensor, token: Tensor) -> Tensor:
    """The mean (N,) of values (N, T) where there is a token."""
    there = token != UNLABELLED
    return torch.where(there, values, 0.0).sum(1) / there.sum(1).clamp_min(1)


def likelihood(log: Tensor, token: Tensor) -> Tensor:
    """The geometric mean (N,) of the probabilities of the tokens of each row, of log-probabilities (N, T, V)."""
    return row_mean(log.gather(-1, token.clamp_min(0)[..., None]).squeeze(-1), token).exp()


def adaptive_skew(gap: Tensor, usual: Tensor | float, base: float = 0.1) -> Tensor:
    """The skew (N,) with which a pair of likelihoods as far apart as ``gap`` (N,) is about as hard as ``running_gap`` with ``base``, in [0.01, base].

    To first order a mixture's gap is (1 - a) times the gap (Ko et al. 2025, section 3.2).
    """
    return (1 - (1 - base) * usual / (gap + NOTHING)).clamp(LEAST, base)


def contrastive_loss(taught: Text, own: Text, skews: Tensor, share: float = 1.0) -> Tensor:
    """(2 - share) skewed forward KL on the teacher's text + share skewed reverse KL on the student's own, (N,) (Ko et al. 2025, Eq. 6).

    ``skews`` (N, 2) are those of both texts.
    """
    return (2 - share) * skewed_forward(*taught, skews[:, 0]) + share * skewed_reverse(
        *own, skews[:, 1]
    )


@torch.no_grad()
def likelihood_gaps(taught: Text, own: Text) -> Tensor:
    """How much likelier (N, 2) the teacher finds its text than the student does, and the student its own than the teacher."""
    of_taught, of_own = ([likelihood(log, text[2]) for log in text[:2]] for text in (taught, own))
    return torch.stack([of_taught[1] - of_taught[0], of_own[0] - of_own[1]], 1)


def reverse_weight(progress: float, gradual: bool = True) -> float:
    """How much the student's text counts, of 2: 1, rising to 1.5 in the first half of the training."""
    return 1 + 0.5 * min(1.0, 2 * progress) if gradual else 1.0


class DistiLLM2(SequenceLevel):
    """For each prompt (2 - b) skewed forward KL on the teacher's text + b skewed reverse KL on the student's own (Ko et al. 2025, Eq. 6).

    Each text's skew depends on how far teacher and student are apart on it. Objectives, such as cross_entropy, see the teacher's text, with their
    weights.

    ``base_skew``: the largest skew, and that of a text on which they are as far apart as usual.
    ``contrast_weight``: of the loss ``contrast``.
    ``gradual``: b rises from 1 to 1.5 in the first half of the training; else it is 1.
    ``end``: the token that ends a text; in a recipe null is that of the data's tokenizer.
    ``min_prompt_tokens``: of a row at least so many tokens are read, not written.
    ``max_new_tokens``: of a text; null: as many as the row is long.
    ``temperature``: of what both write; 0 is the likeliest token.
    ``top_p``: it is one of the likeliest that have so much probability together.
    ``vocabulary``: number of tokens that may be written, where heads are padded; in a recipe null is that of the data's tokenizer.
    """

    card = Card(
        "DistiLLM-2: A Contrastive Approach Boosts the Distillation of LLMs",
        "https://arxiv.org/abs/2503.07067",
        "ICML",
        2025,
        source="online",
        algorithms=("adaptive", "contrastive"),
        tasks=("language",),
        labels=("single",),
        equation=r"(2 - \beta)\, \mathrm{KL}(p^t \Vert \alpha p^t + (1 - \alpha) p^s)(y_t | x) + "
        r"\beta\, \mathrm{KL}(p^s \Vert (1 - \alpha) p^t + \alpha p^s)(y_s | x), \quad y_t \sim p^t, \; y_s \sim p^s",
        use="A student that already writes well: the divergence that pulls is on the teacher's text, the one that pushes on the student's own.",
        pitfalls="The logits of both texts and both nets are held at once, so memory grows with tokens times vocabulary. Both nets write.",
        deviations="The student writes anew at each step, in the paper once an epoch; what is usual is a running mean, there the mean over an "
        "epoch's texts. No gradient passes through the skew; in the authors' code it does where the skew is not at a bound.",
    )
    running_gap: Tensor
    num_updates: Tensor

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        base_skew: Annotated[float, Gt(0), Lt(1)] = 0.1,
        contrast_weight: NonNegative = 1.0,
        gradual: bool = True,
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
        self.base_skew, self.contrast_weight, self.gradual = base_skew, contrast_weight, gradual
        self.register_buffer("running_gap", torch.zeros(2))
        self.register_buffer("num_updates", torch.zeros((), dtype=torch.int64))

    def before_step(self, batch: Batch) -> Batch:
        return super().before_step(batch) | {"student_text": self.student_text(batch)}

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        return {**super().counts(batch), "contrast": pairs(batch).sum()}

    def step(self, batch: Batch) -> Iterator[Update]:
        student, teacher = self.forward_both(batch)
        update: Update = self.objectives(student, teacher, batch)
        own_student, own_teacher = self.forward_both(batch["student_text"])
        taught, own = (
            [
                drop_unlabelled_gradient(token, to_float32(side["logits"][..., : self.vocabulary]))[
                    0
                ].log_softmax(-1)
                for side in sides
            ]
            for sides, token in (
                ((student, teacher), batch["token"]),
                ((own_student, own_teacher), batch["student_text"]["token"]),
            )
        )
        texts = (*taught, batch["token"]), (*own, batch["student_text"]["token"])
        apart = likelihood_gaps(*texts)
        base = at_progress(self.base_skew, batch)
        skews = torch.where(
            self.num_updates > 0, adaptive_skew(apart, self.running_gap, base), base
        )
        values = contrastive_loss(
            *texts, skews, reverse_weight(float(batch.get("progress", 0.0)), self.gradual)
        )
        update.losses["contrast"] = at_progress(self.contrast_weight, batch) * mean(
            values, pairs(batch)
        )
        update.state_updates["gaps"] = torch.cat([apart, pairs(batch)[:, None]], 1)
        del student, teacher, own_student, own_teacher, taught, own, texts, values
        yield update
        del update

    def after_step(self, gathered_rows: dict[str, Tensor]) -> None:
        rows = gathered_rows.pop("gaps")
        super().after_step(gathered_rows)
        counts = rows[:, 2:]
        now = (rows[:, :2] * counts).sum(0) / counts.sum().clamp_min(1)
        moved = torch.where(self.num_updates > 0, KEPT * self.running_gap + (1 - KEPT) * now, now)
        self.running_gap.copy_(torch.where(counts.sum() > 0, moved, self.running_gap))
        self.num_updates += (counts.sum() > 0).long()


def pairs(batch: Batch) -> Tensor:
    """1 for each row (N,) that has both texts."""
    both: Tensor = batch["valid"].any(1) & batch["student_text"]["valid"].any(1)
    return both.float()
