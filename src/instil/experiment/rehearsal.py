"""A recipe tried on one batch with nets that are not trained: what can be wrong is wrong before the hours of training."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch

from instil.core import Batch, Net, Scheme, first_tensor, side_effect_free
from instil.data.aligned import read_by_teacher
from instil.data.samples import Samples
from instil.engine import Engine, check_shardable
from instil.experiment import answers, build
from instil.experiment.bench import Bench
from instil.experiment.teachers import class_names, kind_of, school, together
from instil.experiment.vocabularies import check_vocabulary, note_doubts
from instil.recipe import error_context, label_objectives
from instil.recipe.errors import RecipeError
from instil.recipe.sections import ModelConfig, Recipe, TeacherConfig, TrainConfig
from instil.training.fit import check

Ready = Callable[[Bench, TeacherConfig, int], "Net | None"]


def rehearse(
    bench: Bench, ready: Ready = lambda stage, spec, number: None
) -> Iterator[tuple[Bench, Scheme, bool]]:
    """Each stage with its prepared scheme and whether its teachers are trained; ``ready`` gives those that are.

    Raises RecipeError with the place in the recipe for all that can be known to fail later.
    """
    made: dict[str, Net] = {}
    for number, stage in enumerate(bench.stages):
        with error_context(f"stages.{number}" if bench.recipe.stages else ""):
            teachers = {
                order: net
                for order, spec in enumerate(stage.recipe.teachers)
                if (net := ready(stage, spec, order)) is not None
            }
            scheme = _prepared(stage, teachers, made)
            handed = copy.deepcopy(scheme.export())
            made |= {"previous": handed, f"stage:{stage.recipe.name}": handed}
            yield stage, scheme, len(teachers) == len(stage.recipe.teachers)


def _prepared(bench: Bench, ready: Mapping[int, Net], earlier: Mapping[str, Net]) -> Scheme:
    """The scheme of one stage, in the order in which its parts are used; ``earlier``: what other stages have made."""
    stage, seed = bench.recipe, bench.recipe.seeds[0]
    samples = bench.train_data(seed)
    batch = next(iter(bench.loader(samples, seed, sampler=stage.data.sampler, mixes=True)))
    torch.manual_seed(seed)

    def made(spec: ModelConfig, path: str, teacher: Net | None = None, bench: Bench = bench) -> Net:
        net = (
            copy.deepcopy(earlier[spec.model])
            if spec.earlier
            else build.net(spec, bench, path, teacher)
        )
        with error_context(path):
            net.freeze(spec.freeze)
            bench.task.check_model(net.model, bench.read_by(spec).facts)
        check_vocabulary(net, bench.read_by(spec), spec, path)
        _answers(net, batch, path)
        return net

    _check_ready(bench, ready)
    specs = [] if stage.store else stage.teachers
    cut = stage.student.model == "teacher" and not any(spec.earlier for spec in specs[:1])
    schools = [school(bench, spec, number) for number, spec in enumerate(specs)]
    nets = (
        [
            ready.get(n) or made(spec, "teacher", bench=own)
            for n, (spec, own) in enumerate(zip(specs, schools, strict=True))
        ]
        if cut
        else []
    )
    student = made(stage.student, "student", nets[0] if nets else None)
    nets = nets or [
        ready.get(n) or made(spec, "teacher", bench=own)
        for n, (spec, own) in enumerate(zip(specs, schools, strict=True))
    ]
    for net, spec, own in zip(nets, specs, schools, strict=True):
        if not (spec.ready or spec.earlier):
            own_batch = batch if own is bench else next(iter(own.loader(own.splits.train)))
            _check_schooling(own, net, spec, own_batch)
    note_doubts(bench, [*zip(nets, specs, strict=True), (student, stage.student)], batch)
    if any(spec.precompute for spec in specs):
        _check_plain(bench)
    with error_context(""):
        teacher = answers.recorded(bench) if stage.store else together(bench, nets)
    if teacher is not None:
        teacher.precompute([batch])
    scheme = build.scheme(bench, student, teacher)
    _prepare(scheme, batch)
    sets = [build.learnt_by(scheme, samples), *_samples_of_baselines(bench, samples)]
    _check_training(bench, scheme, stage.train, "train", *sets)
    _check_classes(bench, student, batch, "student", stage.student.classes)
    if "logits" in scheme.objectives.reads("teacher") and not kind_of(bench).merges_class_spaces:
        for index, net in enumerate(nets):
            _check_classes(bench, net, batch, "teacher", class_names(bench, index))
    return scheme


def _samples_of_baselines(bench: Bench, samples: Samples) -> Iterator[Samples]:
    """The samples from which the baselines on labels learn."""
    goals = {"alone": bench.task.label_objectives, "label_smoothing": ("label_smoothing",)}
    for name in goals:
        if name in bench.recipe.baselines:
            yield build.learnt_from(label_objectives(bench.recipe, *goals[name]), samples)


def _check_ready(bench: Bench, ready: Mapping[int, Net]) -> None:
    """RecipeError where a teacher that needs no training cannot take data of these facts."""
    for index, net in ready.items():
        with error_context("teacher"):
            facts = bench.read_by(bench.recipe.teachers[index]).facts
            bench.task.check_model(net.model, facts)
        spec = bench.recipe.teachers[index]
        check_vocabulary(net, bench.read_by(spec), spec, "teacher")


def _check_schooling(bench: Bench, net: Net, spec: TeacherConfig, batch: Batch) -> None:
    """What would go wrong where a teacher is trained first."""
    stage = bench.recipe
    _check_classes(bench, net, batch, "teacher", None)
    scheme = build.teacher_scheme(bench, net, spec)
    with error_context("teacher.scheme"):
        scheme.prepare(read_by_teacher(batch) if spec.tokenizer else batch)
    own = stage.teacher_train or stage.train
    path = "train" if own == stage.train else "teacher_train"
    samples = build.learnt_by(scheme, bench.splits.train)
    _check_training(bench, scheme, own, path, samples, learners=list(scheme.learners))


def _prepare(scheme: Scheme, batch: Batch) -> None:
    """RecipeError where the scheme's parts do not fit each other or the batch; what names no place in the recipe is the scheme's."""
    try:
        scheme.prepare(batch)
    except ValueError as error:
        named = str(error).partition(":")[0].partition(".")[0] in Recipe.model_fields
        of_server = str(error).startswith(("http://", "https://"))
        place = "teacher" if of_server else "scheme"
        raise RecipeError(str(error) if named else f"{place}: {error}") from error


def _check_plain(bench: Bench) -> None:
    """RecipeError where a teacher cannot be asked before the stage begins."""
    if bench.recipe.data.augment.mixup or bench.recipe.data.surrogate is not None:
        what = "data.augment.mixup" if bench.recipe.data.augment.mixup else "data.surrogate"
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
    bench: Bench, net: Net, batch: Batch, whose: str, names: Sequence[str] | None
) -> None:
    with side_effect_free(net), error_context(whose):
        outputs = net(batch)
        if "logits" in outputs:
            bench.task.check_classes(outputs, bench.splits.classes, names=names, whose=whose)


def _check_training(
    bench: Bench,
    scheme: Scheme,
    train: TrainConfig,
    path: str,
    *sets: Samples,
    learners: Sequence[str] | None = None,
) -> None:
    """What ``fit`` would refuse: optimizers, learners, and batches that cannot be cut."""
    training = build.training(train, 0, learners=learners)
    check(scheme, training)
    with error_context(path):
        if train.shard:
            check_shardable(scheme)
        Engine(precision=train.precision).setup(
            scheme, lambda learner: training.optimizers.get(learner, training.optimizer)
        )
        for samples in sets:
            bench.loader(samples, accumulate=train.accumulate)
