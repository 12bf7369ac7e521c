"""Distillation experts: experts of the student, selected by the teacher's embedding."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Batch, Card, Objective, Outputs, Positive, check_bounds, to_float32
from instil.functional.feature_maps import require_dims
from instil.functional.keyed_random import keyed_uniform
from instil.functional.logits import apply_reduction
from instil.functional.ranking import is_candidate
from instil.items import Items
from instil.modules.adapters import match_dtype


@check_bounds
def distillation_experts_loss(
    expert_outputs: Tensor,
    selection_logits: Tensor,
    teacher_embedding: Tensor,
    temperature: Positive = 1.0,
    reduction: str = "mean",
) -> Tensor:
    """Distillation experts loss (Kang et al. 2020, Eqs. 1 to 5).

    Squared distance of the teacher's embedding and the mixture of the experts.

    Args:
        expert_outputs: (N, E, D), reconstructions of the teacher's embedding by E experts.
        selection_logits: (N, E), with Gumbel noise in training.
        teacher_embedding: (N, D).
        temperature: of the softmax over experts, > 0; near 0 one expert is selected.
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Example:
        >>> experts = torch.stack([torch.zeros(1, 2), torch.ones(1, 2)], 1)
        >>> distillation_experts_loss(experts, torch.zeros(1, 2), torch.ones(1, 2))
        tensor(0.5000)
    """
    require_dims(expert_outputs, 3, "expert_outputs")
    share = (to_float32(selection_logits) / temperature).softmax(-1)
    mixture = (share[..., None] * to_float32(expert_outputs)).sum(-2)
    error = (mixture - to_float32(teacher_embedding)).square().sum(-1)
    return apply_reduction(error, reduction)


class Experts(nn.Module):
    """Experts (one hidden layer each) and the linear selection of one by the teacher's embedding.

    Args:
        student_width: width of the student's embedding.
        teacher_width: width of the teacher's embedding.
        experts: number of experts.
    """

    def __init__(self, student_width: int, teacher_width: int, experts: int):
        super().__init__()
        hidden = (student_width + teacher_width) // 2
        self.selection = nn.Linear(teacher_width, experts)
        self.experts = nn.ModuleList(
            nn.Sequential(
                nn.Linear(student_width, hidden), nn.ReLU(), nn.Linear(hidden, teacher_width)
            )
            for _ in range(experts)
        )

    def forward(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the outputs of the experts (N, E, D), and the selection logits (N, E)."""
        outputs = torch.stack([expert(student) for expert in self.experts], -2)
        return outputs, self.selection(teacher)


class DistillationExperts(Objective):
    """Regression of the teacher's embeddings by experts of the student.

    Reads ``query_embedding`` (N, E) of queries or users, and ``candidate_embedding`` (N, D, E) of
    their candidates. Those that are missing by the student's ``logits`` (N, D) do not count. The
    Gumbel noise depends on the seed, the step and the query.
    """

    items = Items(per_sample=True)
    card = Card(
        "DE-RRD: A Knowledge Distillation Framework for Recommender System",
        "https://arxiv.org/abs/2012.04357",
        "CIKM",
        2020,
        source="features",
        tasks=("recommendation", "ranking"),
        labels=("graded",),
        zero_at_match=False,
        deviations="This is the part DE of the paper; RRD is relaxed_ranking. The temperature is "
        "constant unless a recipe schedules it; the paper lowers it to 1e-10 during the training. "
        "The mean over a query's candidates replaces the sum over the items of the batch.",
        equation=r"\Vert h^t - \sum_e \pi_e E_e(h^s) \Vert_2^2, \quad \pi = \mathrm{softmax} "
        r"\big( (S(h^t) + g) / \tau \big), \quad g \sim \mathrm{Gumbel}",
        use="For a student of a smaller width than the teacher: several experts share the task, so "
        "that different kinds of users do not mix in one small projection. Combine it with a loss "
        "on the scores, such as relaxed_ranking.",
        pitfalls="Published weights are 0.01 and less. Experts cost memory in training and are not "
        "exported. A teacher without embeddings, such as a cross-encoder, cannot be used.",
    )
    needs: ClassVar = {
        # The logits mark candidates that are missing.
        "student": (("query_embedding",), ("candidate_embedding",), ("logits",)),
        "teacher": (("query_embedding",), ("candidate_embedding",)),
    }

    def __init__(
        self,
        experts: Annotated[int, Ge(1), Doc("number of experts for each side")] = 5,
        temperature: Annotated[
            Positive, Doc("temperature of the selection; near 0 one expert is selected")
        ] = 1.0,
    ):
        super().__init__()
        self.experts = experts
        self.temperature = temperature
        self.sides: nn.ModuleDict = nn.ModuleDict()

    def build(self, student_outputs: Outputs, teacher_outputs: Outputs) -> None:
        """Create experts and selections for queries and candidates."""
        for role in ("query_embedding", "candidate_embedding"):
            student = student_outputs[role]
            widths = student.shape[-1], teacher_outputs[role].shape[-1]
            side = Experts(*widths, self.experts)
            self.sides[role] = side.to(student.device, to_float32(student).dtype)

    def forward(self, student_outputs: Outputs, teacher_outputs: Outputs, batch: Batch) -> Tensor:
        values = []
        for role, side in self.sides.items():
            student = to_float32(student_outputs[role])
            teacher = to_float32(teacher_outputs[role])
            num_samples = len(student)
            role_batch = batch
            if _is_shared(student) and _is_shared(teacher):
                # Experts run once for items that are the same for all users.
                student, teacher = student[:1], teacher[:1]
                role_batch = batch | {"index": torch.zeros(1, dtype=torch.int64)}
            student, teacher = match_dtype(side, student), match_dtype(side, teacher)
            outputs, selection = side(student, teacher)
            selection = selection + self._noise(role_batch, selection, role)
            value = distillation_experts_loss(outputs, selection, teacher, self.temperature, "none")
            if value.ndim > 1:
                weight = is_candidate(student_outputs["logits"][: len(value)]).to(value.dtype)
                value = (value * weight).sum(1) / weight.sum(1).clamp_min(1)
            values.append(value.expand(num_samples))
        return torch.stack(values).sum(0)

    def _noise(self, batch: Batch, selection: Tensor, role: str) -> Tensor:
        """Gumbel noise of the shape of the selection logits."""
        size = selection[0].numel()
        uniforms = keyed_uniform(batch, size, f"{self.stream}.{role}").clamp(1e-7, 1 - 1e-7)
        return -(-uniforms.log()).log().view(selection.shape).to(selection)


def _is_shared(embedding: Tensor) -> bool:
    """Whether all samples are views of the same memory."""
    return len(embedding) > 1 and embedding.stride(0) == 0
