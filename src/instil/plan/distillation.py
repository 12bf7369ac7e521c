"""Training of the distilled student, stage after stage."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable

from instil import catalogue
from instil.capabilities import CarriesMemory
from instil.cards import has_tag
from instil.core import Net, Scheme, Teacher
from instil.engine import init_distributed, rank
from instil.experiment import stored_teacher
from instil.experiment.cached_teacher import CachedTeacher
from instil.experiment.compression import copy_of_stage
from instil.experiment.dry_run import dry_run
from instil.experiment.exemplars import Exemplars
from instil.experiment.experiment import Experiment
from instil.experiment.offloaded_teachers import move_teacher
from instil.experiment.schemes import build_scheme, samples_for_scheme
from instil.experiment.teachers import combine_teachers, prepare_teacher
from instil.experiment.training_options import autocast_context, build_training
from instil.files.atomic import atomic
from instil.functional.pictures import encode_png, image_grid
from instil.items import to_device
from instil.plan import finished_stages
from instil.plan.fitting import Fitter
from instil.plan.pictures import synthetic_images
from instil.plan.stage_scores import StageScores
from instil.plan.students import StudentBuilder
from instil.plan.teacher_training import TeacherTrainer
from instil.recipe import build_objectives, earlier_stage
from instil.teachers.frozen import Frozen
from instil.training.fit import FitResult

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
        on_stage: called with seed and index of every finished stage that others follow.
        scores: scores on the test data of all stages.
    """

    def __init__(
        self,
        stages: list[Experiment],
        fitter: Fitter,
        teachers: TeacherTrainer,
        students: StudentBuilder,
    ) -> None:
        self.stages = stages
        self.recipes = [stage.recipe for stage in stages]
        self.fitter = fitter
        self.teachers = teachers
        self.students = students
        self.others: dict[str, Net] = {}
        self.on_stage: Callable[[int, int], None] = lambda seed, stage_index: None
        self._seed: int | None = None
        self._trained: dict[int, Net] = {}
        self._exemplars_of_seed: Exemplars | None = None
        self.scores = StageScores(fitter.evaluator, stages)

    def train(self, seed: int) -> tuple[Net, float]:
        """Train all stages with one seed; return the student and the seconds of all trainings.

        Stages that are finished are read.
        """
        last = len(self.stages) - 1
        seconds = sum(self.train_stage(seed, index) for index in range(last))
        result = self._fit(seed, last)
        self._trained[last] = result.net
        self.scores = StageScores(self.fitter.evaluator, self.stages)
        exemplars = self._exemplars(seed)
        for index in range(len(self.stages)):
            net = exemplars.classifier(index, self._trained[index])
            self.scores.add(net, index)
        self._trained.clear()
        return net, seconds + result.seconds

    def train_stage(self, seed: int, index: int) -> float:
        """Train a stage that others follow, unless it is finished; return its seconds.

        Args:
            seed: seed of the training.
            index: index of the stage.
        """
        folder = self.fitter.folder
        self._forget_other_seeds(seed)
        if finished_stages.is_written(folder, seed, index):
            net = self.untrained(seed, index)
            finished = finished_stages.read(folder, seed, index, net)
            if finished is not None:
                self._trained[index] = net.eval()
                for record in finished.records:
                    self.fitter.log(record)
                return finished.seconds
        start = len(self.fitter.records)
        result = self._fit(seed, index)
        self._trained[index] = result.net
        records = self.fitter.records[start:]
        record = {"seconds": result.seconds, "records": records}
        finished_stages.write(folder, seed, index, result.net, record)
        self.on_stage(seed, index)
        return result.seconds

    def untrained(self, seed: int, index: int) -> Net:
        """Build a network of the architecture that a stage returns, for its weights."""
        stage = self.stages[index]
        if has_tag(catalogue.find("scheme", stage.recipe.scheme.type), "new_architecture"):
            experiment = self.fitter.evaluator.experiment
            _, scheme, _ = next(itertools.islice(dry_run(experiment), index, None))
            return scheme.export()
        spec = stage.recipe.student
        if not spec.earlier:
            return self.students.of_stage(index, seed)
        origin = self.untrained(seed, earlier_stage(self.recipes, index, spec.model))
        return copy_of_stage(
            origin, spec, stage.visible_samples, labelled=stage.labelled_samples(seed)
        )

    def _forget_other_seeds(self, seed: int) -> None:
        if self._seed != seed:
            self._seed = seed
            self._trained.clear()
            self._exemplars_of_seed = None

    def _earlier_net(self, seed: int, index: int, model: str) -> Net:
        """Return the student of the earlier stage that a network of a stage names."""
        return self._net(seed, earlier_stage(self.recipes, index, model))

    def _net(self, seed: int, earlier: int) -> Net:
        """Return the student of a finished stage; it is read, or trained if its file is damaged."""
        self._forget_other_seeds(seed)
        if earlier not in self._trained:
            records = list(self.fitter.records)
            self.train_stage(seed, earlier)
            self.fitter.records = records
        return self._trained[earlier]

    def _fit(self, seed: int, index: int) -> FitResult:
        """Train one stage."""
        stage = self._exemplars(seed).stage(index)
        # The teacher first: building it changes the random state, which the student sets again.
        teacher = self._teacher(seed, index, stage)
        student = self._student(seed, index)
        scheme = build_scheme(stage, student, teacher)
        self._set_memory(scheme, seed, index)
        samples = samples_for_scheme(scheme, stage.train_data(seed))
        training = build_training(stage.recipe.train, seed)
        result = self.fitter.fit("distilled", seed, scheme, samples, training, stage, index)
        self.others = result.others
        if isinstance(scheme, CarriesMemory) and index < len(self.stages) - 1:
            finished_stages.write_memory(self.fitter.folder, seed, index, scheme.memory())
        if stage.recipe.data.surrogate is not None:
            self._write_images(scheme, stage, seed)
        return result

    def _set_memory(self, scheme: Scheme, seed: int, index: int) -> None:
        """Give the scheme the memory of the stage whose student this stage continues."""
        spec = self.recipes[index].student
        if isinstance(scheme, CarriesMemory) and spec.earlier:
            earlier = earlier_stage(self.recipes, index, spec.model)
            memory = finished_stages.read_memory(self.fitter.folder, seed, earlier)
            if memory:
                scheme.set_memory(memory)

    def _student(self, seed: int, index: int) -> Net:
        spec = self.stages[index].recipe.student
        origin = self._earlier_net(seed, index, spec.model) if spec.earlier else None
        return self.students.for_stage(index, seed, origin)

    def _exemplars(self, seed: int) -> Exemplars:
        """Return the exemplars of a seed; those that were chosen before stay."""
        self._forget_other_seeds(seed)
        if self._exemplars_of_seed is None:
            self._exemplars_of_seed = Exemplars(
                self.stages, seed, lambda index: self._net(seed, index)
            )
        return self._exemplars_of_seed

    def _teacher(self, seed: int, index: int, stage: Experiment) -> Teacher | None:
        """Build the teacher of a stage from networks, recorded outputs or students of stages."""
        if stage.recipe.store is not None:
            return stored_teacher.stored_teacher(stage)
        members: list[Net | Teacher] = []
        for teacher_index, spec in enumerate(stage.recipe.teachers):
            if spec.earlier:
                net = copy.deepcopy(self._earlier_net(seed, index, spec.model))
            else:
                net, _ = self.teachers.network(stage, spec, teacher_index)
            members.append(self._precomputed(net, stage) if spec.precompute else net)
        return prepare_teacher(combine_teachers(stage, members), stage)

    def _precomputed(self, net: Net, stage: Experiment) -> CachedTeacher:
        """Compute the outputs that objectives and task read once for all training samples."""
        device = init_distributed()
        teacher = move_teacher(Frozen(net), stage.recipe.train)
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
