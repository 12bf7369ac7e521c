"""The network that a recipe exports, built without the data of the recipe."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Sequence
from typing import Any

import torch

from instil import catalogue
from instil.cards import has_tag
from instil.core import Net, Scheme
from instil.data.samples import Facts
from instil.experiment.networks import model_network
from instil.experiment.teachers import as_teacher
from instil.recipe import (
    build_objectives,
    build_options,
    error_context,
    origin_stage,
    stages,
)
from instil.recipe.sections import (
    Recipe,
)


def build_exported_network(
    recipe: Recipe, facts: Facts, shape: Sequence[int] = (), trust_code: bool = True
) -> Net:
    """The net that a recipe ships, without its data: for data of these facts, whose samples' first input has this ``shape``.

    Where the scheme ships another net than the student, it is prepared once more, with a teacher that knows nothing. Raises ValueError where
    that teacher was itself made by an earlier stage, UntrustedCode where code of the recipe would be
    executed without ``trust_code``.
    """
    every = stages(recipe)
    last, task = every[-1], catalogue.find("task", recipe.task.name)
    example = {
        task.inputs[0]: torch.rand(2, *shape),
        "label": torch.zeros(2, dtype=torch.int64),
        "index": torch.arange(2),
    }
    make = functools.partial(
        model_network, fetch=False, trust_code=trust_code, example=lambda: example
    )
    with error_context("student"):
        student = make(every[origin_stage(every)].student, recipe, task.call, facts)
    kind: type[Scheme] = catalogue.find("scheme", last.scheme.type)
    if not has_tag(kind, "new_architecture"):
        return student
    if any(spec.earlier for spec in last.teachers):
        raise ValueError(
            f"the scheme {last.scheme.type} ships parts of a teacher that an earlier stage made; it cannot be put together anew"
        )
    with error_context("teacher"):
        teachers = [make(spec, last, task.call, facts) for spec in last.teachers]
    parts: dict[str, Any] = {"objectives": build_objectives(last.objectives)}
    if "teacher" in inspect.signature(kind).parameters:
        parts["teacher"] = as_teacher(teachers)
    made: Scheme = kind(
        student, **parts, **build_options("scheme", last.scheme.type, last.scheme.options, "scheme")
    )
    made.prepare(example)
    return made.export()
