"""What schemes of one trunk with several ends share: the ends, and one update on the objectives of all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from instil.core import (
    Batch,
    Objective,
    Objectives,
    Outputs,
    Scheme,
    Update,
    replace_invalid_outputs,
    to_float32,
)
from instil.functional.pooling import global_average_pool
from instil.modules.stage_adapter import StageAdapter

TRUNK_ROLES = ("logits", "features")
"""Roles of the trunk that further ends and their teachers are made of."""


class Branch(nn.Module):
    """Another end of a net, from one of its stages on: two convolutions (of tokens and vectors, linear maps) to the shape of the deepest stage, the
    mean over positions, a classifier. Without BatchNorm, which would couple the samples."""

    def __init__(self, stage: Tensor, deepest: Tensor, classes: int):
        super().__init__()
        self.body = nn.Sequential(
            StageAdapter(stage, deepest, 3), nn.ReLU(), StageAdapter(deepest, deepest, 3), nn.ReLU()
        )
        self.head = nn.Linear(global_average_pool(deepest).shape[1], classes).to(
            deepest.device, to_float32(deepest).dtype
        )

    def forward(self, stage: Tensor) -> Outputs:
        embedding = global_average_pool(self.body(stage))
        return {"logits": self.head(embedding), "embedding": embedding}


class BranchedScheme(Scheme):
    """A student with further ends on the stages of its ``features``; each learns by the objectives, from teachers that ``teachers_for`` makes of all.

    The objectives see the ends' ``logits`` (N, C) and ``embedding`` (N, D), the mean over positions of the deepest stage. The losses of an end
    against several teachers are global_average_pool, those of the ends added up. The student is exported as it is, without the other ends.
    """

    def __init__(self, student: nn.Module, objectives: Objectives | Mapping[str, Objective]):
        super().__init__(student, None, objectives)
        self.branches, self.branch_weight = nn.ModuleList(), 1.0
        self.learners["student"] += ("branches",)

    def branch_stages(self, stages: int) -> list[int]:
        """The stage that each further end starts from, of a net of so many stages."""
        raise NotImplementedError

    def make_branches(self, stages: tuple[Tensor, ...], classes: int) -> Sequence[nn.Module]:
        """The further ends."""
        return [
            Branch(stages[origin], stages[-1], classes)
            for origin in self.branch_stages(len(stages))
        ]

    def build_extra(self, ends: list[Outputs], stages: tuple[Tensor, ...]) -> None:
        """Make what else there is to learn, once, on a dry batch."""

    def teachers_for(
        self, ends: list[Outputs], stages: tuple[Tensor, ...], batch: Batch
    ) -> tuple[list[list[Outputs]], dict[str, Tensor]]:
        """The teachers of each end, the student's own first, and losses of the scheme's own."""
        raise NotImplementedError

    def combine(self, name: str, losses: Tensor) -> Tensor:
        """Reduce the losses of one end against its teachers to one.

        Args:
            name: name of the objective.
            losses: one loss per teacher, in the order of ``teachers_for``.

        Returns:
            Scalar loss of the end.
        """
        return losses.mean()

    def build(self, batch: Batch) -> None:
        outputs = self.student(batch)
        stages = stage_features(outputs)
        if outputs["logits"].ndim != 2:
            raise ValueError(
                f"further ends classify whole samples: logits must be (N, C), not {tuple(outputs['logits'].shape)}"
            )
        self.branches.extend(self.make_branches(stages, outputs["logits"].shape[1]))
        ends = self.branch_outputs(outputs)
        self.build_extra(ends, stages)
        teachers, _ = self.teachers_for(ends, stages, batch)
        self.objectives.build(ends[0], teachers[0][0])

    def branch_outputs(self, outputs: Outputs) -> list[Outputs]:
        """What each end says, the student's own first."""
        stages = stage_features(outputs)
        own = {
            "logits": outputs["logits"],
            "embedding": global_average_pool(to_float32(stages[-1])),
        }
        origins = self.branch_stages(len(stages))
        return [
            own,
            *(
                branch(stages[origin])
                for branch, origin in zip(self.branches, origins, strict=True)
            ),
        ]

    def observe(self, batch: Batch) -> tuple[list[Outputs], tuple[Tensor, ...]]:
        """Run the student and the branches on the batch of a step.

        Args:
            batch: the batch of this step.

        Returns:
            Outputs of the ends, the student's first, and the stages of the student.
        """
        outputs = replace_invalid_outputs(self.student(batch), batch, TRUNK_ROLES)
        return self.branch_outputs(outputs), stage_features(outputs)

    def step(self, batch: Batch) -> Iterator[Update]:
        yield self.compute_losses(batch)

    def compute_losses(self, batch: Batch) -> Update:
        """The objectives' update, over all ends and their teachers, with the scheme's own losses."""
        ends, stages = self.observe(batch)
        teachers, own = self.teachers_for(ends, stages, batch)
        updates = [
            [self.objectives(end, teacher, batch) for teacher in of]
            for end, of in zip(ends, teachers, strict=True)
        ]
        losses = {}
        for name in updates[0][0].losses:
            first, *others = (
                self.combine(name, torch.stack([update.losses[name] for update in of]))
                for of in updates
            )
            losses[name] = first + self.branch_weight * torch.stack(others).sum()
        return Update(losses | own, "student", updates[0][0].state_updates)


def stage_features(outputs: Outputs) -> tuple[Tensor, ...]:
    """The stages that further ends start from; ValueError for fewer than two."""
    stages = outputs.get("features")
    if not isinstance(stages, tuple) or len(stages) < 2:
        raise ValueError(
            f"further ends start from the stages before the last: two or more 'features' of the student, which gives {', '.join(outputs)}"
        )
    return stages
