"""A recipe tried on one batch with nets that are not trained: what can be wrong is wrong before the hours of training."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch

from instil.capabilities import Precomputes
from instil.cards import has_tag
from instil.core import Batch, Net, Scheme, first_tensor, side_effect_free
from instil.data.aligned import read_by_teacher
from instil.data.samples import Samples
from instil.engine import Engine, check_shardable
from instil.experiment.experiment import Experiment
from instil.experiment.networks import build_network
from instil.experiment.schemes import (
    build_scheme,
    build_teacher_scheme,
    samples_for_objectives,
    samples_for_scheme,
)
from instil.experiment.stored_teacher import stored_teacher
from instil.experiment.teachers import (
    combine_teachers,
    combiner_class,
    teacher_class_names,
    teacher_training_data,
)
from instil.experiment.training_options import build_training
from instil.experiment.vocabularies import add_output_warnings, check_vocabulary
from instil.recipe import error_context, label_objectives
from instil.recipe.errors import RecipeError
from instil.recipe.sections import ModelConfig, Recipe, TeacherConfig, TrainConfig
from instil.training.fit import check

Ready = Callable[[Experiment, TeacherConfig, int], "Net | None"]


def dry_run(
    experiment: Experiment, ready: Ready = lambda stage, spec, number: None
) -> Iterator[tuple[Experiment, Scheme, bool]]:
    """Each stage with its prepared scheme and whether its teachers are trained; ``ready`` gives those that are.

    Raises RecipeError with the place in the recipe for all that can be known to fail later.
    """
    made: dict[str, Net] = {}
    for number, stage in enumerate(experiment.stages):
        with error_context(f"stages.{number}" if experiment.recipe.stages else ""):
            teachers = {
                order: net
                for order, spec in enumerate(stage.recipe.teachers)
                if (net := ready(stage, spec, order)) is not None
            }
            scheme = _prepared(stage, teachers, made)
            handed = copy.deepcopy(scheme.export())
            made |= {"previous": handed, f"stage:{stage.recipe.name}": handed}
            yield stage, scheme, len(teachers) == len(stage.recipe.teachers)


def _prepared(
    experiment: Experiment, ready: Mapping[int, Net], earlier: Mapping[str, Net]
) -> Scheme:
    """The scheme of one stage, in the order in which its parts are used; ``earlier``: what other stages have made."""
    stage, seed = experiment.recipe, experiment.recipe.seeds[0]
    samples = experiment.train_data(seed)
    batch = next(iter(experiment.loader(samples, seed, sampler=stage.data.sampler, mixes=True)))
    torch.manual_seed(seed)

    def made(
        spec: ModelConfig,
        path: str,
        teacher: Net | None = None,
        experiment: Experiment = experiment,
    ) -> Net:
        net = (
            copy.deepcopy(earlier[spec.model])
            if spec.earlier
            else build_network(spec, experiment, path, teacher)
        )
        with error_context(path):
            net.freeze(spec.freeze)
            experiment.task.check_model(net.model, experiment.for_network(spec).facts)
        check_vocabulary(net, experiment.for_network(spec), spec, path)
        _answers(net, batch, path)
        return net

    _check_ready(experiment, ready)
    specs = [] if stage.store else stage.teachers
    cut = stage.student.model == "teacher" and not any(spec.earlier for spec in specs[:1])
    schools = [teacher_training_data(experiment, spec, number) for number, spec in enumerate(specs)]
    nets = (
        [
            ready.get(n) or made(spec, "teacher", experiment=own)
            for n, (spec, own) in enumerate(zip(specs, schools, strict=True))
        ]
        if cut
        else []
    )
    student = made(stage.student, "student", nets[0] if nets else None)
    nets = nets or [
        ready.get(n) or made(spec, "teacher", experiment=own)
        for n, (spec, own) in enumerate(zip(specs, schools, strict=True))
    ]
    for net, spec, own in zip(nets, specs, schools, strict=True):
        if not (spec.ready or spec.earlier):
            own_batch = batch if own is experiment else next(iter(own.loader(own.splits.train)))
            _check_schooling(own, net, spec, own_batch)
    add_output_warnings(
        experiment, [*zip(nets, specs, strict=True), (student, stage.student)], batch
    )
    if any(spec.precompute for spec in specs):
        _check_plain(experiment)
    with error_context(""):
        teacher = stored_teacher(experiment) if stage.store else combine_teachers(experiment, nets)
    if isinstance(teacher, Precomputes):
        teacher.precompute([batch])
    scheme = build_scheme(experiment, student, teacher)
    _prepare(scheme, batch)
    sets = [samples_for_scheme(scheme, samples), *_samples_of_baselines(experiment, samples)]
    _check_training(experiment, scheme, stage.train, "train", *sets)
    _check_classes(experiment, student, batch, "student", stage.student.classes)
    if "logits" in scheme.objectives.reads("teacher") and not has_tag(
        combiner_class(experiment), "merged_classes"
    ):
        for index, net in enumerate(nets):
            _check_classes(
                experiment, net, batch, "teacher", teacher_class_names(experiment, index)
            )
    return scheme


def _samples_of_baselines(experiment: Experiment, samples: Samples) -> Iterator[Samples]:
    """The samples from which the baselines on labels learn."""
    goals = {"alone": experiment.task.label_objectives, "label_smoothing": ("label_smoothing",)}
    for name in goals:
        if name in experiment.recipe.baselines:
            yield samples_for_objectives(label_objectives(experiment.recipe, *goals[name]), samples)


def _check_ready(experiment: Experiment, ready: Mapping[int, Net]) -> None:
    """RecipeError where a teacher that needs no training cannot take data of these facts."""
    for index, net in ready.items():
        with error_context("teacher"):
            facts = experiment.for_network(experiment.recipe.teachers[index]).facts
            experiment.task.check_model(net.model, facts)
        spec = experiment.recipe.teachers[index]
        check_vocabulary(net, experiment.for_network(spec), spec, "teacher")


def _check_schooling(experiment: Experiment, net: Net, spec: TeacherConfig, batch: Batch) -> None:
    """What would go wrong where a teacher is trained first."""
    stage = experiment.recipe
    _check_classes(experiment, net, batch, "teacher", None)
    scheme = build_teacher_scheme(experiment, net, spec)
    with error_context("teacher.scheme"):
        scheme.prepare(read_by_teacher(batch) if spec.tokenizer else batch)
    own = stage.teacher_train or stage.train
    path = "train" if own == stage.train else "teacher_train"
    samples = samples_for_scheme(scheme, experiment.splits.train)
    _check_training(experiment, scheme, own, path, samples, learners=list(scheme.learners))


def _prepare(scheme: Scheme, batch: Batch) -> None:
    """RecipeError where the scheme's parts do not fit each other or the batch; what names no place in the recipe is the scheme's."""
    try:
        scheme.prepare(batch)
    except ValueError as error:
        named = str(error).partition(":")[0].partition(".")[0] in Recipe.model_fields
        of_server = str(error).startswith(("http://", "https://"))
        place = "teacher" if of_server else "scheme"
        raise RecipeError(str(error) if named else f"{place}: {error}") from error


def _check_plain(experiment: Experiment) -> None:
    """RecipeError where a teacher cannot be asked before the stage begins."""
    if experiment.recipe.data.augment.mixup or experiment.recipe.data.surrogate is not None:
        what = "data.augment.mixup" if experiment.recipe.data.augment.mixup else "data.surrogate"
        raise RecipeError(
            f"teacher.precompute: {what} makes images that nobody has seen before the stage; leave one of the two out"
        )


def _answers(net: Net, batch: Batch, whose: str) -> None:
    """RecipeError where a model cannot take the inputs at all, in the words of whoever raised."""
    try:
        with side_effect_free(net):
            net(batch)
    except Exception as error:  # somebody else's model
        inputs = "images" if "image" in batch else next(iter(batch))
        shape = " x ".join(str(number) for number in first_tensor(batch).shape[1:])
        raise RecipeError(
            f"{whose}: {type(net.model).__name__} fails on {inputs} of {shape}: {error}"
        ) from error


def _check_classes(
    experiment: Experiment, net: Net, batch: Batch, whose: str, names: Sequence[str] | None
) -> None:
    with side_effect_free(net), error_context(whose):
        outputs = net(batch)
        if "logits" in outputs:
            experiment.task.check_classes(
                outputs, experiment.splits.classes, names=names, whose=whose
            )


def _check_training(
    experiment: Experiment,
    scheme: Scheme,
    train: TrainConfig,
    path: str,
    *sets: Samples,
    learners: Sequence[str] | None = None,
) -> None:
    """What ``fit`` would refuse: optimizers, learners, and batches that cannot be cut."""
    training = build_training(train, 0, learners=learners)
    check(scheme, training)
    with error_context(path):
        if train.shard:
            check_shardable(scheme)
        Engine(precision=train.precision).setup(
            scheme, lambda learner: training.optimizers.get(learner, training.optimizer)
        )
        for samples in sets:
            experiment.loader(samples, accumulate=train.accumulate)
