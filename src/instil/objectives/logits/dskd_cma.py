"""Dual-space distillation with cross-model attention between the tokens of two models."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import (
    UNLABELLED,
    Batch,
    Card,
    Outputs,
    Positive,
    check_bounds,
    item_weights,
    mean,
    to_float32,
)
from instil.functional.logits import apply_reduction
from instil.functional.tokens.cross_attention import (
    cross_attention,
    divide_by_row_deviation,
    token_pair_embeddings,
)
from instil.functional.tokens.dual_space import (
    DualSpaceDivergence,
    frozen_head_logits,
    student_space,
    teacher_space,
)
from instil.items import Items, replace_uncounted
from instil.objectives.bases.dual_space_objective import DualSpace


@check_bounds
def dskd_cma_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    teacher_in_student: Tensor,
    student_in_teacher: Tensor,
    target: Tensor,
    teacher_target: Tensor,
    temperature: Positive = 2.0,
    divergence: DualSpaceDivergence = "forward_kl",
    reduction: str = "mean",
) -> Tensor:
    """Terms of ``dskd_loss``, summed over a row's labelled tokens (Zhang et al. 2024, section 3.3).

    The sum is divided by the number of the student's labelled tokens. In the student's space the
    divergence counts only where the projected teacher predicts the label.

    Args:
        student_logits: (N, T, V).
        teacher_logits: (N, T', V').
        teacher_in_student: (N, T, V), the student's head applied to the teacher's attended states.
        student_in_teacher: (N, T', V'), the teacher's head applied to the student's.
        target: labels of the student's tokens (N, T), ``-100`` for none.
        teacher_target: labels of the teacher's tokens (N, T'), ``-100`` for none.
        temperature: softmax temperature of the divergences, > 0.
        divergence: divergence in the student's space.
        reduction: ``"mean"`` over the labelled tokens, or ``"none"`` (one value per row).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Example:
        >>> import torch
        >>> student_logits, teacher_logits = torch.zeros(1, 2, 3), torch.eye(4)[None, :2]
        >>> projected = torch.eye(3)[None, :2], torch.zeros(1, 2, 4)
        >>> target = torch.tensor([[0, 2]])
        >>> dskd_cma_loss(student_logits, teacher_logits, *projected, target, target)
        tensor(1.0936)
    """
    counted = target != UNLABELLED
    teacher_counted = teacher_target != UNLABELLED
    teacher_in_student = replace_uncounted(teacher_in_student, counted)
    student_in_teacher = replace_uncounted(student_in_teacher, teacher_counted)
    # The student imitates the projected teacher only where that predicts the label, as published.
    correct = (teacher_in_student.argmax(-1) == target) & counted
    student_weight = counted.to(to_float32(student_logits).dtype)
    label_loss, student_divergence = student_space(
        student_logits, teacher_in_student, target, temperature, divergence, student_weight
    )
    teacher_weight = teacher_counted.to(to_float32(teacher_logits).dtype)
    teacher_divergence = teacher_space(
        teacher_logits, student_in_teacher, temperature, teacher_weight
    )
    teacher_divergence = torch.where(teacher_counted, teacher_divergence, 0.0)
    token_values = label_loss + torch.where(correct, student_divergence, 0.0)
    total = token_values.sum(1) + teacher_divergence.sum(1)
    num_tokens = counted.sum(1).to(total.dtype)
    values = total / num_tokens.clamp_min(1)
    return mean(values, num_tokens) if reduction == "mean" else apply_reduction(values, reduction)


class DSKDCMA(DualSpace):
    """DSKD in which each token attends to all tokens of the other model's row.

    An item is a row, weighted by its number of labelled tokens. Queries and keys are the embeddings
    of a token and of its label.
    """

    needs: ClassVar = {
        side: (*roles, ("token_embedding",)) for side, roles in DualSpace.needs.items()
    }
    items = Items(per_sample=True)
    card = Card(
        "Dual-Space Knowledge Distillation for Large Language Models (with cross-model attention)",
        "https://arxiv.org/abs/2406.17328",
        "EMNLP",
        2024,
        source="logits",
        tasks=("language",),
        labels=("single",),
        zero_at_match=False,
        tags=("aligned_tokens",),
        published_weight=1.0,
        weight_setting="the authors' code, GPT-2, T = 2: 0.5 for both losses",
        deviations="Keys, states and embeddings are divided by their standard deviation over the "
        "row, not over the batch, so that rows are independent. The code divides the projected "
        "logits by the temperature twice; here once.",
        equation=r"a = \mathrm{softmax}\!\left(\frac{q\, k^\top}{\sqrt{2E}}\right), \quad h^{t \to "
        r"s} = a\, P h^t, \quad h^{s \to t} = a^\top P' h^s, \quad \mathrm{CE}\!\left(y, p^{t \to "
        r"s}\right) + D\!\left(\mathrm{sg}\, p^{t \to s}, p^s\right) + \mathrm{KL}\!\left(p^t "
        r"\,\|\, p^{s \to t}\right)",
        use="A teacher with another tokenizer whose token boundaries rarely coincide with the "
        "student's.",
        pitfalls="The attention covers the whole row, including the label, and must be trained "
        "before it is useful. For texts whose tokens align well, dskd learns faster. It costs T x "
        "T' scores for each row.",
    )

    def __init__(
        self,
        temperature: Annotated[Positive, Doc("softmax temperature of the divergences")] = 2.0,
        divergence: Annotated[
            DualSpaceDivergence,
            Doc("divergence in the student's space; the teacher's space uses the forward KL"),
        ] = "forward_kl",
    ):
        super().__init__(temperature, divergence)
        self.query: nn.Module = nn.Identity()

    def build(self, student: Outputs, teacher: Outputs) -> None:
        super().build(student, teacher)
        student_width = student["token_embedding"].shape[-1]
        teacher_width = teacher["token_embedding"].shape[-1]
        states = teacher["embedding"]
        if teacher_width != states.shape[-1]:
            raise ValueError(
                "dskd_cma: the teacher's token embeddings cannot be added to its last states. "
                f"Expected {states.shape[-1]} channels, got {teacher_width}. Use dskd."
            )
        self.query = nn.Linear(
            2 * student_width,
            2 * teacher_width,
            device=states.device,
            dtype=to_float32(states).dtype,
        )

    def weight(self, batch: Batch) -> Tensor:
        """Number of labelled tokens of each row."""
        return self._labels(batch)[0].ne(UNLABELLED).sum(1).float()

    def _labels(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Labels of student and teacher, -100 for tokens that do not count."""
        counted = item_weights(batch) > 0
        token_counted = counted if counted.ndim == 2 else counted[:, None]
        student_label = batch["label"].masked_fill(~token_counted, UNLABELLED)
        if "teacher_label" not in batch:
            return student_label, student_label
        empty_row = ~(student_label != UNLABELLED).any(1)[:, None]
        return student_label, batch["teacher_label"].masked_fill(empty_row, UNLABELLED)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        target, teacher_target = self._labels(batch)
        counted = target != UNLABELLED
        teacher_counted = teacher_target != UNLABELLED
        student_pair = token_pair_embeddings(student["token_embedding"], batch["input_ids"], target)
        ids = batch["teacher_input_ids" if "teacher_input_ids" in batch else "input_ids"]
        current, following = token_pair_embeddings(teacher["token_embedding"], ids, teacher_target)
        scores = cross_attention(
            self.projected(self.query, torch.cat(student_pair, -1)),
            divide_by_row_deviation(torch.cat([current, following], -1), teacher_counted),
            counted,
            teacher_counted,
        )
        # Attention weights of 0 do not keep NaN out of the products, so it is replaced here.
        teacher_states = replace_uncounted(to_float32(teacher["embedding"]), teacher_counted)
        student_states = replace_uncounted(student["embedding"], counted)
        values = divide_by_row_deviation(teacher_states, teacher_counted)
        values = values + divide_by_row_deviation(following, teacher_counted)
        teacher_projected = self.projected(self.to_student, values)
        teacher_in_student = frozen_head_logits(
            student["head"], scores.softmax(-1) @ teacher_projected
        )
        student_projected = self.projected(self.to_teacher, student_states)
        student_in_teacher = frozen_head_logits(
            teacher["head"], scores.mT.softmax(-1) @ student_projected
        )
        return dskd_cma_loss(
            student["logits"],
            teacher["logits"],
            teacher_in_student,
            student_in_teacher,
            target,
            teacher_target,
            self.temperature,
            self.divergence,
            "none",
        )
