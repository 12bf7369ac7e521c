"""Each model speaks through the other's head, and attention between their tokens finds what belongs together."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instil.core import (
    UNLABELLED,
    Batch,
    Card,
    Outputs,
    Positive,
    full,
    items,
    mean,
    replace_uncounted,
)
from instil.functional.logits import reduced
from instil.functional.tokens.dual_space import Divergence, student_space, teacher_space, through
from instil.objectives.bases.dual_space_objective import DualSpace


def cross_attention(query: Tensor, key: Tensor, counted: Tensor, other: Tensor) -> Tensor:
    """Scores (N, T, T') of queries (N, T, D) and keys (N, T', D); very negative where either position does not count."""
    scores: Tensor = query @ key.mT / query.shape[-1] ** 0.5
    return scores.masked_fill(
        ~(counted[:, :, None] & other[:, None]), torch.finfo(scores.dtype).min
    )


def token_pair_embeddings(tokens: Tensor, read: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """What a model makes (N, T, E) of each token and of the one that follows it; where none follows, of the first of the vocabulary."""
    known = label != UNLABELLED
    first, second = (
        F.embedding(torch.where(known, numbers, 0), full(tokens).detach())
        for numbers in (read, label)
    )
    return first, second


def dskd_cma_loss(
    student: Tensor,
    teacher: Tensor,
    into_student: Tensor,
    into_teacher: Tensor,
    target: Tensor,
    other: Tensor,
    temperature: float = 2.0,
    divergence: Divergence = "forward_kl",
    reduction: str = "mean",
) -> Tensor:
    """The terms of ``dskd_loss`` over the labelled tokens of a row, by the number of the student's; the projected teacher counts where it is right.

    Logits (N, T, V) and (N, T', V') with labels ``target`` (N, T) and ``other`` (N, T') give (N,) for reduction ``none`` (Zhang et al. 2024,
    section 3.3).
    """
    counted, of_other = target != UNLABELLED, other != UNLABELLED
    into_student = replace_uncounted(into_student, counted)
    into_teacher = replace_uncounted(into_teacher, of_other)
    right = (into_student.argmax(-1) == target) & counted
    labelled, compared = student_space(
        student, into_student, target, temperature, divergence, counted.to(full(student).dtype)
    )
    in_teacher = torch.where(
        of_other,
        teacher_space(teacher, into_teacher, temperature, of_other.to(full(teacher).dtype)),
        0.0,
    )
    whole = (labelled + torch.where(right, compared, 0.0)).sum(1) + in_teacher.sum(1)
    number = counted.sum(1).to(whole.dtype)
    return (
        mean(whole / number.clamp_min(1), number)
        if reduction == "mean"
        else reduced(whole / number.clamp_min(1), reduction)
    )


class DSKDCMA(DualSpace):
    """As dskd, but every student token attends to all tokens of the teacher's row and every teacher token to the student's.

    An item is a row, which counts by its labelled tokens. Queries and keys are the embeddings of a token and of its label.

    ``temperature``: divides the logits.
    ``divergence``: in the student's space; in the teacher's it is the forward KL.
    """

    needs: ClassVar = {
        side: (*roles, ("token_embedding",)) for side, roles in DualSpace.needs.items()
    }
    samples = True
    card = Card(
        "Dual-Space Knowledge Distillation for Large Language Models (with cross-model attention)",
        "https://arxiv.org/abs/2406.17328",
        "EMNLP",
        2024,
        source="logits",
        tasks=("language",),
        labels=("single",),
        zero_at_match=False,
        deviations="Keys, states and embeddings are divided by their standard deviation over the row, not over the batch, so that no row depends on "
        "another. The code divides the projected logits by the temperature twice; here once.",
        equation=r"a = \mathrm{softmax}\!\left(\frac{q\, k^\top}{\sqrt{2E}}\right), \quad h^{t \to s} = a\, P h^t, \quad "
        r"h^{s \to t} = a^\top P' h^s, \quad \mathrm{CE}\!\left(y, p^{t \to s}\right) + D\!\left(\mathrm{sg}\, p^{t \to s}, p^s\right) "
        r"+ \mathrm{KL}\!\left(p^t \,\|\, p^{s \to t}\right)",
        use="A teacher of another tokenizer whose tokens rarely begin and end where the student's do.",
        pitfalls="The attention sees the whole row, the label too, and must be learned before it says anything; on texts that align well dskd is "
        "quicker. It costs T x T' scores a row.",
    )

    def __init__(self, temperature: Positive = 2.0, divergence: Divergence = "forward_kl"):
        super().__init__(temperature, divergence)
        self.query: nn.Module = nn.Identity()

    def build(self, student: Outputs, teacher: Outputs) -> None:
        super().build(student, teacher)
        (mine, theirs), states = (
            (side["token_embedding"].shape[-1] for side in (student, teacher)),
            teacher["embedding"],
        )
        if theirs != states.shape[-1]:
            raise ValueError(
                f"the teacher's embeddings have {theirs} channels, its last states {states.shape[-1]}; dskd_cma adds them up: take dskd"
            )
        self.query = nn.Linear(2 * mine, 2 * theirs, device=states.device, dtype=full(states).dtype)

    def weight(self, batch: Batch) -> Tensor:
        """The labelled tokens of each row."""
        return self._labels(batch)[0].ne(UNLABELLED).sum(1).float()

    def _labels(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Of the student and of the teacher, -100 where nothing counts."""
        counted = items(batch) > 0
        mine = batch["label"].masked_fill(
            ~(counted if counted.ndim == 2 else counted[:, None]), UNLABELLED
        )
        theirs = (
            batch["teacher_label"].masked_fill(~(mine != UNLABELLED).any(1)[:, None], UNLABELLED)
            if "teacher_label" in batch
            else mine
        )
        return mine, theirs

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        target, other = self._labels(batch)
        mine = torch.cat(
            token_pair_embeddings(student["token_embedding"], batch["input_ids"], target), -1
        )
        theirs: Tensor = batch["teacher_input_ids" if "teacher_input_ids" in batch else "input_ids"]
        read, said = token_pair_embeddings(teacher["token_embedding"], theirs, other)
        counted, others = target != UNLABELLED, other != UNLABELLED
        scores = cross_attention(
            self.projected(self.query, mine),
            divide_by_row_deviation(torch.cat([read, said], -1), others),
            counted,
            others,
        )
        # Attention weights of 0 do not keep NaN out of the products, so it is replaced here.
        teacher_states = replace_uncounted(full(teacher["embedding"]), others)
        student_states = replace_uncounted(student["embedding"], counted)
        values = divide_by_row_deviation(teacher_states, others) + divide_by_row_deviation(
            said, others
        )
        of_teacher = through(
            student["head"], scores.softmax(-1) @ self.projected(self.to_student, values)
        )
        of_student = through(
            teacher["head"],
            scores.mT.softmax(-1) @ self.projected(self.to_teacher, student_states),
        )
        sides = student["logits"], teacher["logits"], of_teacher, of_student
        return dskd_cma_loss(*sides, target, other, self.temperature, self.divergence, "none")


def divide_by_row_deviation(values: Tensor, counted: Tensor) -> Tensor:
    """(N, T, D) over the standard deviation of each row's positions that count."""
    weight = counted[..., None].to(values.dtype)
    number = weight.sum((1, 2), keepdim=True).clamp_min(1) * values.shape[-1]
    centre = (values * weight).sum((1, 2), keepdim=True) / number
    spread = ((values - centre).square() * weight).sum((1, 2), keepdim=True) / number
    return values / (spread + torch.finfo(values.dtype).eps).sqrt()
