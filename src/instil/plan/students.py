"""Students of a run before their training."""

from __future__ import annotations

from instil.core import Net
from instil.engine.state import set_seed
from instil.experiment.compression import copy_of_stage
from instil.experiment.experiment import Experiment
from instil.experiment.networks import build_network
from instil.experiment.trained_teachers import starts_from_teacher
from instil.plan.teacher_training import TeacherTrainer
from instil.recipe import origin_stage, student_stages

STAGE_SEED_STEP = 1_000_003
"""Difference of the random seeds of two successive stages."""


class StudentBuilder:
    """Builds the students of a recipe with the initial weights of a seed.

    Args:
        stages: experiment of each training stage.
        teachers: builds the teacher that a student may start from.
    """

    def __init__(self, stages: list[Experiment], teachers: TeacherTrainer) -> None:
        self.stages = stages
        self.recipes = [stage.recipe for stage in stages]
        self.teachers = teachers
        self.origin = origin_stage(self.recipes)
        """Index of the stage whose student, after all later stages, is exported."""

    def exported(self, seed: int) -> Net:
        """Build the student that is exported, as all baselines of a seed start.

        Layers that no stage trains are frozen.
        """
        net = self._build(self.origin, self.stages[-1], seed, seed)
        # The baselines have the architecture that is exported: that after all compressions.
        for index in student_stages(self.recipes)[1:]:
            if self.recipes[index].student.changes:
                stage = self.stages[index]
                labelled = stage.labelled_samples(seed)
                net = copy_of_stage(
                    net, self.recipes[index].student, stage.visible_samples, labelled=labelled
                )
        frozen = [
            recipe.student.freeze
            for index, recipe in enumerate(self.recipes)
            if origin_stage(self.recipes, index) == self.origin
        ]
        net.freeze([path for path in frozen[0] if all(path in paths for paths in frozen)])
        return net

    def of_stage(self, index: int, seed: int) -> Net:
        """Build the student of a stage that has one of its own."""
        offset = STAGE_SEED_STEP * abs(self.origin - index)
        return self._build(index, self.stages[index], seed + offset, seed)

    def for_stage(self, index: int, seed: int, origin: Net | None) -> Net:
        """Build the student of a stage, or copy that of an earlier stage.

        Args:
            index: index of the stage.
            seed: seed of the training.
            origin: student of the earlier stage that the recipe names; None if it names none.
        """
        if origin is None:
            return self.of_stage(index, seed)
        spec = self.recipes[index].student
        # Layers of a compression have random weights of their own stage.
        if spec.changes:
            set_seed(seed + STAGE_SEED_STEP * index)
        stage = self.stages[index]
        labelled = stage.labelled_samples(seed)
        student = copy_of_stage(origin, spec, stage.visible_samples, seed, index, labelled)
        set_seed(seed + STAGE_SEED_STEP * index)
        return student

    def _build(self, index: int, stage: Experiment, seed: int, label_seed: int) -> Net:
        """Build a student with the weights of a seed; ``label_seed`` chooses its labels."""
        spec = self.recipes[index].student
        teacher = None
        if starts_from_teacher(spec, stage):
            teacher, _ = self.teachers.network(stage, stage.recipe.teachers[0], 0)
        # After the teacher, which is built with a random state of its own.
        set_seed(seed)
        return build_network(spec, stage, "student", teacher, label_seed)
