"""Networks of a recipe."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from instil import catalogue, students
from instil.core import Batch, Net
from instil.data.aligned import read_by_teacher
from instil.data.samples import Facts
from instil.experiment.compression import compress, make_observer
from instil.experiment.experiment import Experiment
from instil.networks import factory
from instil.networks.inferred_taps import infer_taps
from instil.networks.inputs import input_of
from instil.networks.presets import taps_for
from instil.networks.weights import load_weights
from instil.recipe import (
    error_context,
)
from instil.recipe.sections import (
    ModelConfig,
    Recipe,
    TeacherConfig,
)


def build_network(
    spec: ModelConfig, experiment: Experiment, path: str, teacher: Net | None = None
) -> Net:
    """A net as a recipe describes it, with the task's call, the taps of its family and those of the recipe; errors begin with ``path``.

    ``teacher``: what a student begins as that is made of its teacher; by default the recipe's first, as it is built.
    """
    with error_context(path):
        observe = make_observer(experiment.task.call, experiment.visible_samples)
        made = model_network(
            spec,
            experiment.recipe,
            experiment.task.call,
            experiment.for_network(spec).facts,
            observe=observe,
            teacher=teacher,
            example=functools.partial(experiment.visible_samples.__getitems__, [0]),
        )
        if spec.weights is not None:
            load_weights(made.model, experiment.recipe.locate(spec.weights))
        made.freeze(spec.freeze)
        return made


def model_network(
    spec: ModelConfig,
    recipe: Recipe,
    call: Callable[..., Any],
    facts: Facts,
    fetch: bool = True,
    observe: students.Observe = None,
    teacher: Net | None = None,
    trust_code: bool = True,
    example: Callable[[], Batch] | None = None,
) -> Net:
    given = {key: value for key, value in spec.input.model_dump().items() if value is not None}
    if other := [key for key in given if key not in inspect.signature(call).parameters]:
        raise ValueError(
            f"input.{other[0]}: a model of {recipe.task.name} takes its input as the data are"
        )
    if wanted := given.get("size"):
        facts = facts | {"size": (wanted[0], wanted[-1]) if isinstance(wanted, list) else wanted}
    if spec.model == "teacher":
        model = _of_teacher(spec, recipe, call, facts, fetch, teacher, trust_code)
    else:
        model = factory.build(
            spec.model,
            spec.options,
            base=Path(recipe.folder),
            imports=recipe.imports,
            pretrained=spec.pretrained,
            fetch=fetch,
            trust_code=trust_code,
            **facts,
        )
    model = compress(model, spec, observe)
    asked = functools.partial(call, **{**input_of(model), **given})
    taps = taps_for(model)
    if "features" not in taps and example is not None and _reads_inside(recipe, spec):
        batch = example()
        # Maps of other inputs than images have no stages to tell apart by their resolution.
        taps = infer_taps(model, asked, batch) | taps if "image" in batch else taps
    taps = taps | {role: _paths(where) for role, where in spec.taps.items()}
    return Net(
        model,
        functools.partial(_in_its_tokens, asked)
        if isinstance(spec, TeacherConfig) and spec.tokenizer
        else asked,
        taps,
    )


def _reads_inside(recipe: Recipe, spec: ModelConfig) -> bool:
    """Whether an objective of the recipe, or its scheme, reads more of this net than its logits."""
    side = "teacher" if isinstance(spec, TeacherConfig) else "student"
    if recipe.scheme.type != "offline":
        return True
    kinds = [catalogue.find("objective", goal.type) for goal in recipe.objectives.values()]
    return any(set(need) - {"logits"} for kind in kinds for need in kind.needs.get(side, ()))


def _in_its_tokens(
    call: Callable[..., Any],
    model: nn.Module,
    batch: Batch,
    roles: Collection[str] | None = None,
) -> Any:
    """Outputs of a teacher with a tokenizer of its own, for its part of the batch."""
    return call(model, read_by_teacher(batch), roles=roles)


def _of_teacher(
    spec: ModelConfig,
    recipe: Recipe,
    call: Callable[..., Any],
    facts: Facts,
    fetch: bool,
    teacher: Net | None,
    trust_code: bool,
) -> nn.Module:
    """A copy of the teacher to make a student of."""
    if isinstance(spec, TeacherConfig) or not recipe.teachers or recipe.teachers[0].earlier:
        raise ValueError(
            "model: 'teacher' is what a student begins as whose recipe has a teacher that no stage made"
        )
    first_of = recipe.teachers[0]
    if first_of.tokenizer is not None:
        raise ValueError(
            "model: a student that begins as its teacher reads the same tokens; set data.tokenizer, and leave teacher.tokenizer out"
        )
    if teacher is None:
        teacher = model_network(first_of, recipe, call, facts, fetch, trust_code=trust_code)
        if fetch and first_of.weights is not None:
            load_weights(teacher.model, recipe.locate(first_of.weights))
    return copy.deepcopy(teacher.model).requires_grad_(True)


def _paths(where: str | int | Sequence[str | int]) -> str | list[str]:
    return str(where) if isinstance(where, (str, int)) else [str(one) for one in where]
