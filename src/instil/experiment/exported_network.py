"""The network that a recipe exports, built without the data of the recipe."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch

from instil import catalogue
from instil.cards import has_tag
from instil.core import Batch, Net, Scheme
from instil.data.samples import Facts
from instil.experiment.compression import copy_of_stage
from instil.experiment.network_inputs import exported_student
from instil.experiment.networks import NetworkBuilder
from instil.experiment.teachers import as_teacher
from instil.networks.network_call import write_keys
from instil.recipe import build_objectives, build_options, error_context, stages, student_stages
from instil.recipe.sections import Recipe


def build_exported_network(
    recipe: Recipe, facts: Facts, shape: Sequence[int] = (), trust_code: bool = True
) -> Net:
    """Build the network that a recipe exports, with random weights and without the data.

    If the distilled student is exported and its scheme exports another architecture than the
    student's, the scheme is prepared again, with an untrained teacher.

    Args:
        recipe: the recipe.
        facts: arguments for builders of networks, such as the number of classes.
        shape: shape of the first input of a sample.
        trust_code: whether code of the recipe may be executed.

    Raises:
        ValueError: if the export has parts of a teacher that an earlier stage trained.
        UntrustedCode: if code of the recipe would be executed without ``trust_code``.
    """
    all_stages = stages(recipe)
    last = all_stages[-1]
    task = catalogue.find("task", recipe.task.name)
    student_config = exported_student(recipe)
    batch = {
        task.inputs[0]: torch.rand(2, *shape),
        "label": torch.zeros(2, dtype=torch.int64),
        "index": torch.arange(2),
    }
    for config in (student_config, *last.teachers):
        batch = write_keys(batch, config.reads)

    # Nothing is downloaded: the weights come from the exported file.
    def builder(stage: Recipe) -> NetworkBuilder:
        return NetworkBuilder(
            stage, task, facts, example=lambda: batch, fetch=False, trust_code=trust_code
        )

    with error_context("student"):
        student = builder(recipe).build(student_config)
        for index in student_stages(all_stages)[1:]:
            if all_stages[index].student.changes:
                student = copy_of_stage(student, all_stages[index].student, None)
    scheme_class: type[Scheme] = catalogue.find("scheme", last.scheme.type)
    if recipe.exported_arm != "distilled" or not has_tag(scheme_class, "new_architecture"):
        return student
    if any(config.earlier for config in last.teachers):
        raise ValueError(
            f"the scheme {last.scheme.type} exports parts of its teacher, which an earlier stage "
            "trained. Expected a teacher that can be built without that stage"
        )
    with error_context("teacher"):
        teachers = [builder(last).build(config) for config in last.teachers]
    return _export(last, student, teachers, batch)


def _export(stage: Recipe, student: Net, teachers: Sequence[Net], batch: Batch) -> Net:
    """Export of the stage's scheme, prepared with an example batch."""
    scheme_class: type[Scheme] = catalogue.find("scheme", stage.scheme.type)
    parts: dict[str, Any] = {"objectives": build_objectives(stage.objectives)}
    if "teacher" in inspect.signature(scheme_class).parameters:
        parts["teacher"] = as_teacher(teachers)
    options = build_options("scheme", stage.scheme.type, stage.scheme.options, "scheme")
    scheme = scheme_class(student, **parts, **options)
    scheme.prepare(batch)
    return scheme.export()
