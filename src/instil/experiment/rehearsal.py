"""A recipe tried on one batch with nets that are not trained: what can be wrong is wrong before the hours of training."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch

from instil.core import Batch, Net, Scheme, dry, first
from instil.data.samples import Samples
from instil.engine import Engine
from instil.experiment import build
from instil.experiment.build import Bench
from instil.recipe.errors import RecipeError
from instil.recipe.sections import Model, Train
from instil.schemes.offline import Offline
from instil.train import check

Ready = Callable[[Bench, Model, int], "Net | None"]


def rehearse(bench: Bench, ready: Ready = lambda stage, spec, number: None) -> Iterator[tuple[Bench, Scheme, bool]]:
    """Each stage with its prepared scheme and whether its teachers are trained; ``ready`` gives those that are.

    Raises RecipeError with the place in the recipe for all that can be known to fail later.
    """
    previous: Net | None = None
    for number, stage in enumerate(build.stages_of(bench)):
        with build.at(f"stages.{number}" if bench.recipe.stages else ""):
            teachers = {order: net for order, spec in enumerate(stage.recipe.teachers) if (net := ready(stage, spec, order)) is not None}
            scheme = _prepared(stage, teachers, previous)
            previous = copy.deepcopy(scheme.export())
            yield stage, scheme, len(teachers) == len(stage.recipe.teachers)


def _prepared(bench: Bench, ready: Mapping[int, Net], previous: Net | None) -> Scheme:
    """The scheme of one stage, in the order in which its parts are used."""
    stage, seed = bench.recipe, bench.recipe.seeds[0]
    samples = bench.train_data(seed)
    batch = next(iter(bench.loader(samples, seed)))
    torch.manual_seed(seed)

    def made(spec: Model, path: str) -> Net:
        net = copy.deepcopy(previous) if spec.model == "previous" and previous is not None else build.net(spec, bench, path)
        with build.at(path):
            bench.task.check_model(net.model, bench.facts)
        _answers(net, batch, path)
        return net

    student = made(stage.student, "student")
    nets = [ready.get(number) or made(spec, "teacher") for number, spec in enumerate(stage.teachers)]
    to_train = [net for net, spec in zip(nets, stage.teachers, strict=True) if spec.weights is None and not spec.trained and spec.model != "previous"]
    for net in to_train:
        _check_classes(bench, net, batch, "teacher", None)
        alone = Offline(net, None, build.label_objectives(stage, *bench.task.label_objectives))
        own = stage.teacher_train or stage.train
        _check_training(bench, alone, own, "train" if own == stage.train else "teacher_train", bench.splits.train, learners=["student"])
    scheme = build.scheme(bench, student, build.teacher(nets))
    scheme.prepare(batch)
    on_labels = {"alone": bench.task.label_objectives, "label_smoothing": ("label_smoothing",)}
    seen = [build.learnt_from(build.label_objectives(stage, *goals), samples) for name, goals in on_labels.items() if name in stage.baselines]
    _check_training(bench, scheme, stage.train, "train", samples, *seen)
    _check_classes(bench, student, batch, "student", stage.student)
    for net, spec in zip(nets, stage.teachers, strict=True):
        if "logits" in scheme.objectives.reads("teacher"):
            _check_classes(bench, net, batch, "teacher", spec)
    return scheme


def _answers(net: Net, batch: Batch, whose: str) -> None:
    """RecipeError where a model cannot take the inputs at all, in the words of whoever raised."""
    try:
        with dry(net):
            net(batch)
    except Exception as error:  # somebody else's model
        inputs = "images" if "image" in batch else next(iter(batch))
        shape = " x ".join(str(number) for number in first(batch).shape[1:])
        raise RecipeError(f"{whose}: {type(net.model).__name__} fails on {inputs} of {shape}: {error}") from error


def _check_classes(bench: Bench, net: Net, batch: Batch, whose: str, spec: Model | None) -> None:
    with dry(net), build.at(whose):
        outputs = net(batch)
        if "logits" in outputs:
            bench.task.check_classes(outputs, bench.splits.classes, names=spec.classes if spec else None, whose=whose)


def _check_training(bench: Bench, scheme: Scheme, train: Train, path: str, *sets: Samples, learners: Sequence[str] | None = None) -> None:
    """What ``fit`` would refuse: optimizers, learners, and batches that cannot be cut."""
    training = build.training(train, 0, learners=learners)
    check(scheme, training)
    with build.at(path):
        Engine(precision=train.precision).setup(scheme, lambda learner: training.optimizers.get(learner, training.optimizer))
        for samples in sets:
            bench.loader(samples, accumulate=train.accumulate)
