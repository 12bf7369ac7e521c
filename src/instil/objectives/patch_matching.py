"""What agglomerative losses share: the student's deepest stage against that of each of several teachers, patch by patch."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from instil.core import Objective, Outputs, full
from instil.objectives.adapters import adapter, as_map, comparable
from instil.objectives.pairs import plan, stages
from instil.objectives.several_teachers import members

SMALLEST_DEVIATION = 1e-6


def cosine_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """One minus the cosine over the last dimension: (..., D) gives (...)."""
    student, teacher = comparable(student, teacher, "cosine_distance")
    return 1 - F.cosine_similarity(student, teacher, dim=-1)


def smooth_l1_distance(student: Tensor, teacher: Tensor, beta: float = 1.0) -> Tensor:
    """Smooth L1 difference, mean over the last dimension: (..., D) gives (...)."""
    student, teacher = comparable(student, teacher, "smooth_l1_distance")
    return F.smooth_l1_loss(student, teacher, reduction="none", beta=beta).sum(-1) / max(1, student.shape[-1])


def patches(stage: Tensor) -> Tensor:
    """A stage, map or tokens, as patch tokens (N, H * W, C) without class and register tokens."""
    return as_map(stage).flatten(2).mT


class Standardization(nn.Module):
    """Takes what is like the patches of a dry batch to mean 0 and standard deviation 1 in each channel; nothing of it moves afterwards."""

    def __init__(self, tokens: Tensor):
        super().__init__()
        rows = full(tokens).flatten(0, -2)
        self.register_buffer("mean", rows.mean(0))
        self.register_buffer("scale", rows.std(0, correction=0).clamp_min(SMALLEST_DEVIATION).reciprocal())
        self.mean: Tensor
        self.scale: Tensor

    def forward(self, tokens: Tensor) -> Tensor:
        return (full(tokens) - self.mean) * self.scale


class PatchObjective(Objective):
    """A loss of the student's deepest stage, through an adapter for each teacher, and the deepest stage of each teacher; mean over the teachers.

    Several teachers are an ``Ensemble``'s ``members``. ``plan`` says in words, after ``build``, how each teacher is met.
    """

    needs: ClassVar = {"student": (("features",),), "teacher": (("members", "features"),)}
    samples = True

    def __init__(self) -> None:
        super().__init__()
        self.matched: list[tuple[int, int]] = []  # of each teacher: student stage, teacher stage
        self.plan: list[str] = []
        self.adapters = nn.ModuleList()
        self.targets = nn.ModuleList()

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """One adapter and one preparation of the target a teacher. Raises ValueError for a teacher that gives no features."""
        mine = stages(student)
        self.matched, self.plan, self.adapters, self.targets = [], [], nn.ModuleList(), nn.ModuleList()
        for number, member in enumerate(members(teacher)):
            if "features" not in member:
                raise ValueError(f"teacher {number} gives {', '.join(member)}, and no features; name the module that gives them in its taps")
            theirs = stages(member)
            pair = len(mine) - 1, len(theirs) - 1
            made = adapter(mine[-1], theirs[-1])
            self.matched.append(pair)
            self.adapters.append(made)
            self.targets.append(self.prepare(patches(theirs[-1])))
            self.plan.append(plan(pair, mine[-1], theirs[-1], str(made)))

    def prepare(self, tokens: Tensor) -> nn.Module:
        """What a teacher's patches (N, L, D) go through before they are compared."""
        return nn.Identity()

    def paired(self, student: Outputs, teacher: Outputs) -> list[tuple[Tensor, Tensor, nn.Module]]:
        """Of each teacher: the student's adapted patches and the teacher's (N, L, D), and what ``prepare`` made for the teacher's."""
        mine = stages(student)[-1]
        sides = zip(self.adapters, self.targets, members(teacher), strict=True)
        return [(patches(made(mine)), patches(stages(member)[-1]), target) for made, target, member in sides]
