"""What agglomerative losses share: the student's deepest stage against that of each of several teachers, patch by patch."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor, nn

from instil.core import Batch, Objective, Outputs, full, items
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
    return F.smooth_l1_loss(student, teacher, reduction="none", beta=beta).sum(-1) / max(
        1, student.shape[-1]
    )


def patches(stage: Tensor) -> Tensor:
    """A stage, map or tokens, as patch tokens (N, H * W, C) without class and register tokens."""
    return as_map(stage).flatten(2).mT


class Statistics(nn.Module):
    """What a teacher's tokens go through, by their mean and spread: those of a dry batch, until ``settle`` is given the moments of many samples.

    Nothing of it moves in training, so that the target does not.
    """

    def moments(self, tokens: Tensor) -> Tensor:
        """One row that can be added up over batches: how many tokens, their sum, and the sum of their squares or products; float64."""
        raise NotImplementedError

    def settle(self, moments: Tensor) -> None:
        """Take the statistics of rows of moments instead of those of the dry batch."""
        raise NotImplementedError


class Standardization(Statistics):
    """Takes what is like the tokens that it knows to mean 0 and standard deviation 1 in each channel."""

    def __init__(self, tokens: Tensor):
        super().__init__()
        width, like = tokens.shape[-1], full(tokens)
        self.register_buffer("mean", like.new_zeros(width))
        self.register_buffer("scale", like.new_zeros(width))
        self.mean: Tensor
        self.scale: Tensor
        self.settle(self.moments(tokens))

    def forward(self, tokens: Tensor) -> Tensor:
        return (full(tokens) - self.mean) * self.scale

    def moments(self, tokens: Tensor) -> Tensor:
        rows = tokens.detach().flatten(0, -2).double()
        return torch.cat([rows.new_tensor([len(rows)]), rows.sum(0), rows.square().sum(0)])[None]

    def settle(self, moments: Tensor) -> None:
        count, total, squares = torch.split(moments.sum(0), [1, len(self.mean), len(self.mean)])
        mean = total / count
        deviation = (squares / count - mean.square()).clamp_min(0).sqrt()
        self.mean.copy_(mean)
        self.scale.copy_(deviation.clamp_min(SMALLEST_DEVIATION).reciprocal())


class PatchObjective(Objective):
    """A loss of the student's deepest stage, through an adapter for each teacher, and the deepest stage of each teacher; mean over the teachers.

    ``studies``: samples of which the teachers' statistics are taken before training; 0: those of the first batch.

    Several teachers are an ``Ensemble``'s ``members``. ``plan`` says in words, after ``build``, how each teacher is met.
    """

    needs: ClassVar = {"student": (("features",),), "teacher": (("members", "features"),)}
    samples = True

    def __init__(self, studies: Annotated[int, Ge(0)] = 1000) -> None:
        super().__init__()
        self.studies = studies
        self.matched: list[tuple[int, int]] = []  # of each teacher: student stage, teacher stage
        self.plan: list[str] = []
        self.adapters = nn.ModuleList()
        self.targets = nn.ModuleList()

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """One adapter and one preparation of the target a teacher. Raises ValueError for a teacher that gives no features."""
        mine = stages(student)
        self.matched, self.plan, self.adapters, self.targets = (
            [],
            [],
            nn.ModuleList(),
            nn.ModuleList(),
        )
        for number, member in enumerate(members(teacher)):
            if "features" not in member:
                raise ValueError(
                    f"teacher {number} gives {', '.join(member)}, and no features; name the module that gives them in its taps"
                )
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

    def scales(self) -> list[nn.Module]:
        """What brings the teachers' outputs to a common scale, in the order of ``spoken``."""
        return list(self.targets)

    def spoken(self, teacher: Outputs) -> list[Tensor]:
        """The tokens (N, ..., D) that ``scales`` are for."""
        return [patches(stages(member)[-1]) for member in members(teacher)]

    def study(self, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        counted = items(batch).flatten(1).amax(1) > 0 if items(batch).ndim > 1 else items(batch) > 0
        sides = enumerate(zip(self.scales(), self.spoken(teacher), strict=True))
        return {
            str(number): scale.moments(tokens[counted])
            for number, (scale, tokens) in sides
            if isinstance(scale, Statistics)
        }

    def studied(self, rows: dict[str, Tensor]) -> None:
        for number, scale in enumerate(self.scales()):
            if isinstance(scale, Statistics):
                scale.settle(rows[str(number)])

    def paired(self, student: Outputs, teacher: Outputs) -> list[tuple[Tensor, Tensor, nn.Module]]:
        """Of each teacher: the student's adapted patches and the teacher's (N, L, D), and what ``prepare`` made for the teacher's."""
        mine = stages(student)[-1]
        sides = zip(self.adapters, self.targets, members(teacher), strict=True)
        return [
            (patches(made(mine)), patches(stages(member)[-1]), target)
            for made, target, member in sides
        ]
