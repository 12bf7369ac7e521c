"""A stage tried on one batch with nets that are not trained: what can be wrong is wrong before the hours of training."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from instil.core import Net, Scheme
from instil.experiment import build
from instil.experiment.build import Bench
from instil.recipe.sections import Recipe
from instil.train import check_cut


def rehearse(bench: Bench, stage: Recipe, seed: int = 0, teachers: Mapping[int, Net] | None = None) -> Scheme:
    """The prepared scheme of a stage, with the ``teachers`` (by number) that are trained already; errors name the place in the recipe."""
    batch = next(iter(bench.loader(bench.train_data(seed), seed)))
    torch.manual_seed(seed)
    student = build.net(bench.recipe.student if stage.student.model == "previous" else stage.student, bench, "student")
    ready = teachers or {}
    nets = [
        ready.get(number) or build.net(bench.recipe.student if spec.model == "previous" else spec, bench, "teacher")
        for number, spec in enumerate(stage.teachers)
    ]
    scheme = build.scheme(stage, student, build.teacher(nets), bench)
    check_cut(scheme, build.training(stage.train, seed))
    scheme.prepare(batch)
    sides = [("student", student, stage.student), *(("teacher", net, spec) for net, spec in zip(nets, stage.teachers, strict=True))]
    for whose, net, spec in sides:
        if whose == "student" or "logits" in scheme.objectives.reads("teacher"):
            with torch.no_grad(), build.at(whose):
                bench.task.check_classes(net.eval()(batch), bench.splits.classes, names=spec.classes, whose=whose)
    return scheme
