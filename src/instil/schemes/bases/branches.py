"""Base class of schemes whose student has branches: further classifiers on its earlier stages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from instil.core import Batch, Objective, Objectives, Outputs, Scheme, Update, to_float32
from instil.functional.pooling import global_average_pool
from instil.items import replace_invalid_outputs
from instil.modules.stage_adapter import StageAdapter

TRUNK_ROLES = ("logits", "features")
"""Roles of the student that branches and their teachers are computed from."""


class Branch(nn.Module):
    """Classifier on a stage of a network.

    Two convolutions to the shape of the deepest stage (linear layers for tokens and vectors), the
    mean over positions, and a linear classifier. There is no BatchNorm, which would couple the
    samples of a batch.

    Args:
        stage: example of the stage that the branch starts from.
        deepest: example of the deepest stage.
        classes: number of classes.
    """

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
    """Base class of schemes that train a student together with branches on its ``features``.

    Each end of the student (its own classifier, and each branch) is trained by the objectives
    against the teachers of ``teachers_for``. The objectives receive the ``logits`` (N, C) and the
    ``embedding`` (N, D) of an end: the mean over positions of its deepest stage. The losses of one
    end against several teachers are averaged; the losses of the ends are added. The student is
    exported without the branches.

    Args:
        student: the student.
        objectives: losses of each end.
    """

    def __init__(self, student: nn.Module, objectives: Objectives | Mapping[str, Objective]):
        super().__init__(student, None, objectives)
        self.branches = nn.ModuleList()
        self.branch_weight = 1.0
        self.learners["student"] += ("branches",)

    def branch_stages(self, stages: int) -> list[int]:
        """Choose the stages that the branches start from.

        Args:
            stages: number of stages of the student.

        Returns:
            Index of the stage of each branch.
        """
        raise NotImplementedError

    def make_branches(self, stages: tuple[Tensor, ...], classes: int) -> Sequence[nn.Module]:
        """Create the branches.

        Args:
            stages: stages of the student on a dry batch.
            classes: number of classes.

        Returns:
            Modules that map a stage to outputs, in the order of ``branch_stages``.
        """
        return [
            Branch(stages[origin], stages[-1], classes)
            for origin in self.branch_stages(len(stages))
        ]

    def build_extra(self, ends: list[Outputs], stages: tuple[Tensor, ...]) -> None:
        """Create further trained modules, once, from a dry batch.

        Args:
            ends: outputs of the ends, the student's own first.
            stages: stages of the student.
        """

    def teachers_for(
        self, ends: list[Outputs], stages: tuple[Tensor, ...], batch: Batch
    ) -> tuple[list[list[Outputs]], dict[str, Tensor]]:
        """Compute the teachers of each end.

        Args:
            ends: outputs of the ends, the student's own first.
            stages: stages of the student.
            batch: the batch of this step.

        Returns:
            The teachers of each end, the student's own first, and losses of the scheme itself.
        """
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
                "scheme: branches classify whole samples. Expected logits (N, C) of the student, "
                f"got {tuple(outputs['logits'].shape)}"
            )
        self.branches.extend(self.make_branches(stages, outputs["logits"].shape[1]))
        ends = self.branch_outputs(outputs)
        self.build_extra(ends, stages)
        teachers, _ = self.teachers_for(ends, stages, batch)
        # All ends use the same objectives, which are built for the student's own end.
        self.objectives.build(ends[0], teachers[0][0])

    def branch_outputs(self, outputs: Outputs) -> list[Outputs]:
        """Compute the outputs of each end.

        Args:
            outputs: outputs of the student.

        Returns:
            Outputs of the ends, the student's own first.
        """
        stages = stage_features(outputs)
        embedding = global_average_pool(to_float32(stages[-1]))
        ends: list[Outputs] = [{"logits": outputs["logits"], "embedding": embedding}]
        origins = self.branch_stages(len(stages))
        for branch, origin in zip(self.branches, origins, strict=True):
            ends.append(branch(stages[origin]))
        return ends

    def observe(self, batch: Batch) -> tuple[list[Outputs], tuple[Tensor, ...]]:
        """Run the student and the branches on the batch of a step.

        Args:
            batch: the batch of this step.

        Returns:
            Outputs of the ends, the student's own first, and the stages of the student.
        """
        # Before the branches: a NaN of an invalid sample would make the gradient of their weights
        # NaN.
        outputs = replace_invalid_outputs(self.student(batch), batch, TRUNK_ROLES)
        return self.branch_outputs(outputs), stage_features(outputs)

    def step(self, batch: Batch) -> Iterator[Update]:
        yield self.compute_losses(batch)

    def compute_losses(self, batch: Batch) -> Update:
        """Compute the losses of all ends against their teachers, and the scheme's own losses.

        Args:
            batch: the batch of this step.

        Returns:
            Update of the student.
        """
        ends, stages = self.observe(batch)
        teachers, scheme_losses = self.teachers_for(ends, stages, batch)
        updates = [
            [self.objectives(end, teacher, batch) for teacher in end_teachers]
            for end, end_teachers in zip(ends, teachers, strict=True)
        ]
        losses = {}
        for name in updates[0][0].losses:
            student_loss, *branch_losses = (
                self.combine(name, torch.stack([update.losses[name] for update in end_updates]))
                for end_updates in updates
            )
            losses[name] = student_loss + self.branch_weight * torch.stack(branch_losses).sum()
        # The other ends and teachers see the same samples, so their rows would count each sample
        # again.
        return Update(losses | scheme_losses, "student", updates[0][0].state_updates)


def stage_features(outputs: Outputs) -> tuple[Tensor, ...]:
    """Return the stages that branches start from.

    Args:
        outputs: outputs of the student.

    Returns:
        The role ``features``.

    Raises:
        ValueError: if there are fewer than two stages.
    """
    stages = outputs.get("features")
    if not isinstance(stages, tuple) or len(stages) < 2:
        raise ValueError(
            "scheme: branches start from the stages before the last. Expected two or more "
            f"'features' of the student, which outputs {', '.join(outputs)}. Name the modules in "
            "student.taps.features"
        )
    return stages
