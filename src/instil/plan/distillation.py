"""Training of the distilled student, stage after stage."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch

from instil.core import Net, Scheme, Teacher
from instil.engine import init_distributed, rank
from instil.experiment import stored_teacher
from instil.experiment.cached_teacher import CachedTeacher
from instil.experiment.compression import copy_of_stage
from instil.experiment.experiment import Experiment
from instil.experiment.schemes import build_scheme, samples_for_scheme
from instil.experiment.teachers import combine_teachers, prepare_teacher
from instil.experiment.training_options import autocast_context, build_training
from instil.files.atomic import atomic
from instil.items import to_device
from instil.plan.fitting import Fitter
from instil.plan.pictures import encode_png, image_grid, synthetic_images
from instil.plan.students import STAGE_SEED_STEP, StudentBuilder
from instil.plan.teacher_training import TeacherTrainer
from instil.recipe import build_objectives
from instil.teachers.frozen import Frozen

NUM_IMAGES = 16
"""Synthetic training images that the report shows."""


class Distillation:
    """Trains the distilled student of a recipe.

    Args:
        stages: experiment of each training stage.
        fitter: trains into the run folder.
        teachers: builds the teachers.
        students: builds the students.

    Attributes:
        others: further students of the last stage by learner, such as the peers of mutual
            learning.
    """

    def __init__(
        self,
        stages: list[Experiment],
        fitter: Fitter,
        teachers: TeacherTrainer,
        students: StudentBuilder,
    ) -> None:
        self.stages = stages
        self.fitter = fitter
        self.teachers = teachers
        self.students = students
        self.others: dict[str, Net] = {}

    def train(self, seed: int) -> tuple[Net, float]:
        """Train all stages with one seed; return the student and the seconds of all trainings."""
        earlier: dict[str, Net] = {}
        seconds = 0.0
        for index, stage in enumerate(self.stages):
            # The teacher first: building it changes the random state, which the student sets again.
            teacher = self._teacher(stage, earlier)
            student = self._student(index, stage, earlier, seed)
            scheme = build_scheme(stage, student, teacher)
            samples = samples_for_scheme(scheme, stage.train_data(seed))
            training = build_training(stage.recipe.train, seed)
            result = self.fitter.fit("distilled", seed, scheme, samples, training, stage, index)
            earlier |= {"previous": result.net, f"stage:{stage.recipe.name}": result.net}
            seconds += result.seconds
            self.others = result.others
            if stage.recipe.data.surrogate is not None:
                self._write_images(scheme, stage, seed)
        return earlier["previous"], seconds

    def _student(self, index: int, stage: Experiment, earlier: Mapping[str, Net], seed: int) -> Net:
        spec = stage.recipe.student
        if not spec.earlier:
            return self.students.of_stage(index, seed)
        # Layers of a compression have random weights of their own stage.
        if spec.changes:
            torch.manual_seed(seed + STAGE_SEED_STEP * index)
        student = copy_of_stage(earlier[spec.model], spec, stage.visible_samples)
        torch.manual_seed(seed + STAGE_SEED_STEP * index)
        return student

    def _teacher(self, stage: Experiment, earlier: Mapping[str, Net]) -> Teacher | None:
        """Build the teacher of a stage from networks, recorded outputs or students of stages."""
        if stage.recipe.store is not None:
            return stored_teacher.stored_teacher(stage)
        members: list[Net | Teacher] = []
        for index, spec in enumerate(stage.recipe.teachers):
            if spec.earlier:
                net = copy.deepcopy(earlier[spec.model])
            else:
                net, _ = self.teachers.network(stage, spec, index)
            members.append(self._precomputed(net, stage) if spec.precompute else net)
        return prepare_teacher(combine_teachers(stage, members), stage)

    def _precomputed(self, net: Net, stage: Experiment) -> CachedTeacher:
        """Compute the outputs that objectives and task read once for all training samples."""
        device = init_distributed()
        teacher = Frozen(net).to(device)
        evaluator = self.fitter.evaluator
        loader = evaluator.experiment.loader(stage.samples, shuffle=False)
        available = teacher(to_device(next(iter(loader)), device))
        roles = []
        for _, objective in build_objectives(stage.recipe.objectives).named():
            for alternatives in objective.needs["teacher"]:
                if available.keys() & set(alternatives):
                    roles.append(next(role for role in alternatives if role in available))
        with autocast_context(stage.recipe.train):
            return evaluator.cache_outputs(teacher, stage.samples, roles)

    def _write_images(self, scheme: Scheme, stage: Experiment, seed: int) -> None:
        """Write some of the images that a student without training data was trained on."""
        images = synthetic_images(scheme, stage, seed)
        if images is not None and rank() == 0:
            path = self.fitter.folder.arm_file("distilled", seed, ".png")
            with atomic(path) as temporary:
                temporary.write_bytes(encode_png(image_grid(images[:NUM_IMAGES])))
