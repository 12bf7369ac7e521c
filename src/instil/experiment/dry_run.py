"""Dry run of a recipe: builds and checks everything on one batch, before hours of training."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from instil import catalogue
from instil.capabilities import Precomputes
from instil.cards import has_tag
from instil.core import Batch, Net, Scheme, Teacher
from instil.data.samples import Samples
from instil.engine.state import set_seed
from instil.experiment.compression import copy_of_stage
from instil.experiment.dry_run_checks import (
    check_classes,
    check_forward,
    check_metrics,
    check_precompute,
    check_teacher_training,
    check_trained_teacher,
    check_training,
    prepare_scheme,
)
from instil.experiment.exemplars import check_exemplar_head, check_exemplars
from instil.experiment.experiment import Experiment
from instil.experiment.fitted_student import is_fitted_student
from instil.experiment.fitted_student_checks import check_fit
from instil.experiment.fitted_teacher import check_estimator_kind
from instil.experiment.library_classes import check_teacher_classes
from instil.experiment.networks import build_network
from instil.experiment.noise_checks import check_noise
from instil.experiment.own_losses import check_own_losses
from instil.experiment.schemes import build_scheme, samples_for_objectives, samples_for_scheme
from instil.experiment.stored_teacher import stored_teacher
from instil.experiment.teachers import (
    combine_teachers,
    combiner_class,
    teacher_training_data,
)
from instil.experiment.text_checks import check_encoded_texts
from instil.experiment.trained_teachers import starts_from_teacher
from instil.experiment.vocabularies import add_output_warnings, check_vocabulary
from instil.recipe import error_context, label_objectives
from instil.recipe.sections import ModelConfig, TeacherConfig
from instil.roles.query_decoder import QUERY_LOGITS

CLASS_ROLES = {"logits", "anchor_logits", "x_logits", *QUERY_LOGITS}
"""Roles with an entry for each class."""
LoadTrained = Callable[[Experiment, TeacherConfig, int], "Net | None"]
"""Function of (experiment of a stage, section of a teacher, its index) that returns the teacher
with its final weights, or None if it must be trained first."""


def dry_run(
    experiment: Experiment,
    load_trained: LoadTrained = lambda experiment, teacher_config, index: None,
) -> Iterator[tuple[Experiment, Scheme, bool]]:
    """Build each stage of a recipe and check it on one batch.

    Args:
        experiment: experiment of the recipe.
        load_trained: function that loads teachers; the default leaves all teachers untrained.

    Yields:
        Experiment of the stage, its prepared scheme, and whether all its teachers are trained.

    Raises:
        RecipeError: for all that would fail later, with its recipe path.
    """
    check_exemplars(experiment)
    exported: dict[str, Net] = {}
    for stage_index, stage in enumerate(experiment.stages):
        with error_context(f"stages.{stage_index}" if experiment.recipe.stages else ""):
            trained: dict[int, Net] = {}
            for index, teacher_config in enumerate(stage.recipe.teachers):
                net = load_trained(stage, teacher_config, index)
                if net is not None:
                    trained[index] = net
            scheme = _build_stage(stage, trained, exported)
            # A copy: later stages may change the student, and the caller still uses the scheme.
            student = copy.deepcopy(scheme.export())
            exported |= {"previous": student, f"stage:{stage.recipe.name}": student}
            if stage_index == len(experiment.stages) - 1:
                check_metrics(experiment, student)
            yield stage, scheme, len(trained) == len(stage.recipe.teachers)


def _build_stage(
    experiment: Experiment, trained: Mapping[int, Net], exported: Mapping[str, Net]
) -> Scheme:
    """Build and check the scheme of one stage.

    Args:
        experiment: experiment of the stage.
        trained: trained teachers, by index.
        exported: students of earlier stages, by the name that refers to them in a recipe.
    """
    recipe = experiment.recipe
    seed = recipe.seeds[0]
    samples = experiment.train_data(seed)
    loader = experiment.loader(samples, seed, sampler=recipe.data.sampler, with_mixing=True)
    batch = next(iter(loader))
    # The networks are initialised after the batch is drawn, which uses random numbers too.
    set_seed(seed)
    for index, net in trained.items():
        check_trained_teacher(experiment, net, index)
    networks = _StageNetworks(experiment, trained, exported, batch)
    student, teachers = networks.build()
    networks.check_teacher_trainings(teachers)
    configs = networks.teacher_configs
    pairs = [*zip(teachers, configs, strict=True), (student, recipe.student)]
    add_output_warnings(experiment, pairs, batch)
    if any(config.precompute for config in configs):
        check_precompute(recipe)
    scheme = build_scheme(experiment, student, _combined_teacher(experiment, teachers, batch))
    prepare_scheme(scheme, batch)
    check_noise(scheme)
    check_encoded_texts(scheme, experiment.task, batch)
    check_own_losses(scheme, batch, samples)
    sample_sets = [samples_for_scheme(scheme, samples), *_baseline_samples(experiment, samples)]
    if is_fitted_student(scheme):
        check_fit(experiment, scheme, batch)
    else:
        check_training(experiment, scheme, recipe.train, "train", sample_sets)
    check_classes(experiment, student, batch, "student", recipe.student.classes)
    check_exemplar_head(experiment, student, batch)
    combiner = combiner_class(experiment)
    # Votes are labels, so no objective reads the logits of these members.
    gives_labels = bool(teachers) and has_tag(combiner, "disjoint_data")
    reads_classes = gives_labels or scheme.objectives.reads("teacher") & CLASS_ROLES
    if reads_classes and not has_tag(combiner, "merged_classes"):
        check_teacher_classes(experiment, teachers, batch)
    return scheme


@dataclass
class _StageNetworks:
    """Student and teachers of one stage."""

    experiment: Experiment
    trained: Mapping[int, Net]
    exported: Mapping[str, Net]
    batch: Batch

    def __post_init__(self) -> None:
        recipe = self.experiment.recipe
        # A store replaces the teachers, which need not exist here.
        self.teacher_configs = [] if recipe.store else recipe.teachers
        self.teacher_data = [
            teacher_training_data(self.experiment, config, index)
            for index, config in enumerate(self.teacher_configs)
        ]

    def build(self) -> tuple[Net, list[Net]]:
        """Build the student and its teachers."""
        student_config = self.experiment.recipe.student
        # A student that starts from its teacher needs the teacher first. All others come first, as
        # in a real run: the order of building decides the random initial weights.
        if starts_from_teacher(student_config, self.experiment):
            teachers = self._build_teachers()
            first_teacher = teachers[0] if teachers else None
            return self._build(student_config, "student", self.experiment, first_teacher), teachers
        student = self._build(student_config, "student", self.experiment)
        return student, self._build_teachers()

    def check_teacher_trainings(self, teachers: Sequence[Net]) -> None:
        """Check the training of each teacher that has no weights yet."""
        for net, config, data in zip(
            teachers, self.teacher_configs, self.teacher_data, strict=True
        ):
            if config.ready or config.earlier:
                continue
            batch = self.batch
            if config.is_fitted:
                check_classes(data, net, batch, "teacher", None)
                continue
            if data is not self.experiment:
                batch = next(iter(data.loader(data.splits.train)))
            check_teacher_training(data, net, config, batch)

    def _build_teachers(self) -> list[Net]:
        teachers = []
        for index, config in enumerate(self.teacher_configs):
            if index in self.trained:
                teachers.append(self.trained[index])
            else:
                teachers.append(self._build(config, "teacher", self.teacher_data[index]))
        return teachers

    def _build(
        self, config: ModelConfig, path: str, data: Experiment, teacher: Net | None = None
    ) -> Net:
        """Build a network, or copy the student of an earlier stage, and check it."""
        if config.earlier:
            with error_context(path):
                earlier = self.exported[config.model]
                seed = self.experiment.recipe.seeds[0]
                net = copy_of_stage(
                    earlier,
                    config,
                    data.visible_samples,
                    seed,
                    labelled=data.labelled_samples(seed),
                )
        else:
            net = build_network(config, data, path, teacher)
        with error_context(path):
            net.freeze(config.freeze)
            data.task.check_model(net.model, data.facts_for(config))
        if path == "teacher":
            # A student of another task has messages of its own, which name that task.
            check_estimator_kind(net.model, data.task.kind, config.model, path)
        check_vocabulary(net, data.for_network(config), config, path)
        check_forward(net, self.batch, path)
        return net


def _combined_teacher(
    experiment: Experiment, teachers: Sequence[Net], batch: Batch
) -> Teacher | None:
    """Teacher of the stage, which has seen the batch."""
    with error_context(""):
        if experiment.recipe.store:
            teacher: Teacher | None = stored_teacher(experiment)
        else:
            teacher = combine_teachers(experiment, teachers)
    if isinstance(teacher, Precomputes):
        teacher.precompute([batch])
    return teacher


def _baseline_samples(experiment: Experiment, samples: Samples) -> Iterator[Samples]:
    """Training samples of each baseline that is trained on labels."""
    for name in experiment.recipe.baselines:
        kind = catalogue.find("baseline", name)
        if kind.trains and not kind.sees_unlabeled:
            losses = kind.label_objectives(experiment.task)
            yield samples_for_objectives(label_objectives(experiment.recipe, *losses), samples)
