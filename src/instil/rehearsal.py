"""A stage tried on one batch with nets that are not trained: what can be wrong is wrong before the hours of training."""

from __future__ import annotations

import torch

from instil import build
from instil.build import Bench
from instil.core import Scheme
from instil.sections import Recipe


def rehearse(bench: Bench, stage: Recipe, seed: int = 0) -> Scheme:
    """The prepared scheme of a stage; errors name the place in the recipe."""
    batch = next(iter(bench.loader(bench.train_data(seed), seed)))
    torch.manual_seed(seed)
    student = build.net(bench.recipe.student if stage.student.model == "previous" else stage.student, bench, "student")
    teachers = [build.net(bench.recipe.student if spec.model == "previous" else spec, bench, "teacher") for spec in stage.teachers]
    scheme = build.scheme(stage, student, build.teacher(teachers), bench)
    scheme.prepare(batch)
    nets = [("student", student, stage.student), *(("teacher", net, spec) for net, spec in zip(teachers, stage.teachers, strict=True))]
    for whose, net, spec in nets:
        if whose == "student" or "logits" in scheme.objectives.reads("teacher"):
            with torch.no_grad(), build.at(whose):
                bench.task.check_classes(net.eval()(batch), bench.splits.classes, names=spec.classes, whose=whose)
    return scheme
