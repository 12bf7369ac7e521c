"""A recipe tried on one batch with nets that are not trained: what can be wrong is wrong before the hours of training."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping

import torch

from instil.core import Net, Scheme
from instil.experiment import build
from instil.experiment.build import Bench
from instil.recipe.sections import Model
from instil.train import check_cut

Ready = Callable[[Bench, Model, int], "Net | None"]


def rehearse(bench: Bench, ready: Ready = lambda stage, spec, number: None) -> Iterator[tuple[Bench, Scheme, bool]]:
    """Each stage with its prepared scheme and whether its teachers are trained; ``ready`` gives those that are.

    Errors name the place in the recipe.
    """
    previous: Net | None = None
    for number, stage in enumerate(build.stages_of(bench)):
        with build.at(f"stages.{number}" if bench.recipe.stages else ""):
            teachers = {order: net for order, spec in enumerate(stage.recipe.teachers) if (net := ready(stage, spec, order)) is not None}
            scheme = _prepared(stage, teachers, previous)
            previous = copy.deepcopy(scheme.export())
            yield stage, scheme, len(teachers) == len(stage.recipe.teachers)


def _prepared(bench: Bench, ready: Mapping[int, Net], previous: Net | None) -> Scheme:
    stage, seed = bench.recipe, 0
    batch = next(iter(bench.loader(bench.train_data(seed), seed)))
    torch.manual_seed(seed)

    def made(spec: Model, path: str) -> Net:
        return copy.deepcopy(previous) if spec.model == "previous" and previous is not None else build.net(spec, bench, path)

    student = made(stage.student, "student")
    nets = [ready.get(number) or made(spec, "teacher") for number, spec in enumerate(stage.teachers)]
    scheme = build.scheme(bench, student, build.teacher(nets))
    check_cut(scheme, build.training(stage.train, seed))
    scheme.prepare(batch)
    asked = "logits" in scheme.objectives.reads("teacher")
    sides = [("student", student, stage.student, True)]
    for net, spec in zip(nets, stage.teachers, strict=True):
        sides.append(("teacher", net, spec, asked or (spec.weights is None and not spec.trained)))  # to be trained, it must know the classes
    for whose, net, spec, knows in sides:
        if knows:
            with torch.no_grad(), build.at(whose):
                bench.task.check_classes(net.eval()(batch), bench.splits.classes, names=spec.classes, whose=whose)
    return scheme
