"""Candidates of a search over students: networks of other sizes, and compressed teachers."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from instil.networks import factory
from instil.recipe.sections import ModelConfig, Recipe
from instil.search.arms import Arm, own_arm
from instil.students.layers import output_head, stack

FAMILIES = ("networks", "teacher", "timm")
"""Families of students: the package's networks, compressions of the teacher, and timm."""

WIDTHS = {"student": (2.0, 1.0, 0.5, 0.25), "teacher": (0.5, 0.25, 0.125)}
"""Widths of candidates, as shares of the width of student and teacher."""

LAYER_SHARES = (0.75, 0.5, 0.25)
"""Shares of the teacher's layers that a candidate keeps."""

PRUNED_SHARES = (0.5, 0.75)
"""Shares of the teacher's channels, neurons and heads that a candidate loses."""

PRUNING_ROUNDS = 2
"""Rounds in which a candidate is pruned. They share the steps of one training."""

SCALED_NAMES = {
    "depth": "teacher_{}_layers",
    "low_rank": "teacher_rank_{}",
    "width": "teacher_{}_neurons",
    "prune": "teacher_pruned_{}",
}
"""Names of teachers with one change, by that change; pruned shares are in percent."""

TIMM = (
    "lcnet_035",
    "lcnet_050",
    "lcnet_100",
    "mobilenetv3_small_050",
    "mobilenetv3_small_100",
    "mobilenetv2_050",
    "tinynet_e",
    "ghostnet_050",
    "mobileone_s0",
    "resnet10t",
    "resnet18",
    "efficientnet_lite0",
    "convnext_atto",
)
"""Small image models of timm, ordered by family; their costs are measured."""


def student_arms(
    recipe: Recipe, teacher: nn.Module | None, names: Sequence[str] | None
) -> Iterator[Arm]:
    """Yield the recipe's student, and an arm for each candidate that differs from it.

    Args:
        recipe: the recipe.
        teacher: network of its teacher; None if there is none, or none that can be compressed.
        names: families, or models such as ``timm:resnet18``. None: ``networks`` and ``teacher``,
            and ``timm`` if student or teacher is one of its models.
    """
    own = recipe.student.model_dump(mode="json")
    yield own_arm()
    sections_by_name: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(families(recipe) if names is None else names):
        if name == "networks":
            sections = _networks(recipe)
        elif name == "teacher":
            sections = {} if teacher is None else _compressions(recipe, teacher)
        elif name == "timm":
            sections = _timm(recipe)
        else:
            sections = {name.rpartition(":")[2]: _section(recipe.student, name, {})}
        for key, section in sections.items():
            # Two sources may have a model of one name.
            unique = name if sections_by_name.get(key, section) != section else key
            if section != own and unique not in sections_by_name:
                sections_by_name[unique] = section
                yield Arm(unique, "student", False, {"student": section})


def families(recipe: Recipe) -> tuple[str, ...]:
    """Return the default families of students: timm belongs to them if one network is of it."""
    models = [recipe.student.model, *(config.model for config in recipe.teachers)]
    has_timm = any(model.startswith("timm:") for model in models)
    return FAMILIES if has_timm else FAMILIES[:2]


def _section(config: ModelConfig, model: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a student's section for another model, which reads the same inputs."""
    fields = {"input", "reads", "classes"}
    if model.partition(":")[0] == config.model.partition(":")[0]:
        fields |= {"pretrained"}
    if model == config.model:
        fields |= {"taps", "freeze"}
    section = config.model_dump(mode="json", include=fields)
    full = ModelConfig(model=model, options=dict(options), **section)
    if full.is_fitted:
        raise ValueError(
            f"--students: {model} is fitted at once, and a search compares trainings in steps. "
            "Expected networks. Use instil run for this student"
        )
    return full.model_dump(mode="json")


def _networks(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """Return networks of the package in other widths and depths, by name."""
    sections: dict[str, dict[str, Any]] = {}
    own_sizes = network_sizes(recipe.student)
    configs = [("student", recipe.student), *(("teacher", one) for one in recipe.teachers[:1])]
    for role, config in configs:
        options = network_sizes(config)
        if "width" not in options:
            continue
        multiple = width_multiple(options)
        for share in WIDTHS[role]:
            width = max(multiple, 2, round(options["width"] * share / multiple) * multiple)
            for depth in _depths(options.get("depth")):
                sizes = {"width": width} if depth is None else {"width": width, "depth": depth}
                is_own = config.model == recipe.student.model
                if is_own and sizes.items() <= own_sizes.items():
                    continue
                name = network_name(config.model, sizes)
                section = _section(recipe.student, config.model, config.options | sizes)
                sections.setdefault(name, section)
    return sections


def network_name(model: str, options: Mapping[str, Any]) -> str:
    """Return the name of a network of the package with its width and depth.

    Example:
        >>> network_name("networks:cnn", {"width": 8, "depth": 2, "stages": 3})
        'cnn_w8_d2'
    """
    sizes = [f"{key[0]}{options[key]}" for key in ("width", "depth") if key in options]
    return "_".join([model.rpartition(":")[2], *sizes])


def width_multiple(options: Mapping[str, Any]) -> int:
    """Return the number that the width of a network divides by: attention heads share it."""
    return 2 * int(options["heads"]) if "heads" in options else 1


def network_sizes(config: ModelConfig) -> dict[str, Any]:
    """Return the options of a network of the package with their defaults; empty for others."""
    source, _, name = config.model.rpartition(":")
    if source not in factory.OWN_SOURCES or name not in factory.network_names():
        return {}
    parameters = inspect.signature(factory.own_builder(name)).parameters
    defaults = {
        key: parameter.default
        for key, parameter in parameters.items()
        if isinstance(parameter.default, int)
    }
    return defaults | config.options


def _depths(depth: int | None) -> list[int | None]:
    if depth is None or depth < 2:
        return [depth]
    return [depth, depth // 2]


def _compressions(recipe: Recipe, teacher: nn.Module) -> dict[str, dict[str, Any]]:
    """Return students that start from the teacher's weights, by name."""
    changes: dict[str, dict[str, Any]] = {}
    try:
        num_layers = len(stack(teacher)[1])
    except ValueError:
        num_layers = 0
    for share in LAYER_SHARES:
        layers = round(num_layers * share)
        if 0 < layers < num_layers:
            # Measured for language models (docs/language.md); not for others.
            by = {"by": "block"} if recipe.task.name == "language" else {}
            name = SCALED_NAMES["depth"].format(layers)
            changes.setdefault(name, {"depth": {"layers": layers, **by}})
    for share in (0.5, 0.25):
        changes |= _narrow(teacher, share)
    changes["teacher_8_bits"] = {"quantized": {"bits": 8}}
    changes["teacher_4_bits"] = {"quantized": {"bits": 4}}
    for bits in (8, 4):
        changes[f"teacher_lsq_{bits}_bits"] = {"lsq": {"bits": bits}}
    changes["teacher_2_of_4"] = {"sparse": {"n": 2, "m": 4}}
    for share in PRUNED_SHARES:
        changes[SCALED_NAMES["prune"].format(round(100 * share))] = {"prune": {"share": share}}
    sections = {}
    for name, change in changes.items():
        section = _section(recipe.student, "teacher", {})
        rounds = PRUNING_ROUNDS if "prune" in change else 1
        sections[name] = section | {"changes": change, "rounds": rounds}
    return sections


def _narrow(teacher: nn.Module, share: float) -> dict[str, dict[str, Any]]:
    """Return fewer neurons and a head of lower rank, for language models of transformers."""
    head: Any = output_head(teacher)
    config: Any = getattr(teacher, "config", None)
    changes: dict[str, dict[str, Any]] = {}
    if head is not None and hasattr(head, "weight"):
        rank = int(head.weight.shape[1] * share)
        changes[SCALED_NAMES["low_rank"].format(rank)] = {"low_rank": {"rank": max(1, rank)}}
    if head is not None and hasattr(config, "intermediate_size"):
        neurons = max(1, int(config.intermediate_size * share))
        changes[SCALED_NAMES["width"].format(neurons)] = {"width": {"neurons": neurons}}
    return changes


def _timm(recipe: Recipe) -> dict[str, dict[str, Any]]:
    return {name: _section(recipe.student, f"timm:{name}", {}) for name in TIMM}
