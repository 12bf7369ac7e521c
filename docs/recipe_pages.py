"""Pages about recipes: the keys of every section, the data sources and the shipped recipes."""

from __future__ import annotations

from collections.abc import Iterator
from inspect import cleandoc, isclass
from itertools import groupby
from typing import Any, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from formatting import cell, plain, table, value
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from typing_extensions import Doc

from instil import catalogue, recipe
from instil.catalogue.signatures import type_text
from instil.recipe import packaged
from instil.recipe.schedules import SCHEDULED

BOUNDS = {Ge: (">=", "ge"), Gt: (">", "gt"), Le: ("<=", "le"), Lt: ("<", "lt")}
COMPUTED = {
    "epochs": "20, unless `steps` is set",
    "steps": "none",
    "teacher_train": "as `train`",
    "baselines": "those of the [task](recipe.md#tasks-metrics-and-baselines)",
    "export": "whether the task has an export",
}
"""Defaults that the recipe loader computes."""


def keys_page() -> str:
    """Tables of the keys of every section of a recipe."""
    lines = [
        "# Recipe keys",
        "",
        "Every section and key of a recipe with its type and default.",
        "[Write a recipe](recipe.md) explains how they work together.",
        "",
    ]
    paths: dict[type[BaseModel], list[str]] = {}
    for path, section in _sections("", recipe.Recipe):
        names = paths.setdefault(section, [])
        if path not in names:
            names.append(path)
    for section, names in paths.items():
        title = ", ".join(f"`{name}`" for name in names if name) or "Top level"
        lines += [f"## {title}", "", plain(cleandoc(section.__doc__ or "")), ""]
        lines += _inherited(section, paths) + _keys(section)
    stage_keys = ", ".join(f"`{key}`" for key in recipe.STAGE_KEYS)
    return "\n".join([*lines, "## `stages[]`", "", f"Keys of a stage: {stage_keys}.", ""])


def _sections(path: str, section: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    """Every section below ``section`` with its path in a recipe, outermost first."""
    yield path, section
    for name, field in section.model_fields.items():
        for part in _models(field.annotation):
            inner = f"{path}.{name}".lstrip(".")
            suffix = ".<name>" if get_origin(field.annotation) is dict else ""
            yield from _sections(inner + suffix, part)


def _models(annotation: Any) -> list[type[BaseModel]]:
    """Section classes that occur in an annotation."""
    if isclass(annotation) and issubclass(annotation, BaseModel):
        return [annotation]
    models: list[type[BaseModel]] = []
    for part in get_args(annotation):
        models += [model for model in _models(part) if model not in models]
    return models


def _inherited(section: type[BaseModel], paths: dict[type[BaseModel], list[str]]) -> list[str]:
    base = section.__base__
    if base not in paths:
        return []
    names = ", ".join(f"`{name}`" for name in paths[base])
    return [f"It also has the keys of {names}.", ""]


def _keys(section: type[BaseModel]) -> list[str]:
    fields = [
        (name, field)
        for name, field in section.model_fields.items()
        if name in section.__annotations__
    ]
    header, texts = ["key", "type", "default"], [_description(field) for _, field in fields]
    rows = [[f"`{name}`", cell(_type(field)), _default(name, field)] for name, field in fields]
    if any(texts):
        header.append("description")
        rows = [[*row, cell(text)] for row, text in zip(rows, texts, strict=True)]
    return table(header, rows)


def _description(field: FieldInfo) -> str:
    documented = [part.documentation for part in field.metadata if isinstance(part, Doc)]
    return field.description or " ".join(documented)


def _type(field: FieldInfo) -> str:
    if SCHEDULED in field.metadata:
        return "float or schedule"
    bounds = []
    for part in field.metadata:
        if type(part) in BOUNDS:
            sign, attribute = BOUNDS[type(part)]
            bounds.append(f"{sign} {getattr(part, attribute):g}")
    return " ".join([_type_name(field.annotation), *bounds])


def _type_name(annotation: Any) -> str:
    """Name of a type; a section is written as ``section``."""
    if not _models(annotation):
        return type_text(annotation)
    if isclass(annotation):
        return "section"
    inner = get_args(annotation)
    if get_origin(annotation) is dict:
        return "name: section"
    if get_origin(annotation) is list:
        return f"list of {_type_name(inner[0])}s"
    return " | ".join(dict.fromkeys(_type_name(part) for part in inner))


def _default(name: str, field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        is_key = "the key of the section" in _description(field)
        return "the key of the section" if is_key else "required"
    if isinstance(field.default, BaseModel):
        return "its defaults"
    if name in COMPUTED:
        return COMPUTED[name]
    if name == "name" and field.default == "recipe":
        return "the name of the file"
    return f"`{value(field.default)}`"


def sources_page() -> str:
    """Description and options of every data source."""
    lines = [
        "# Data sources",
        "",
        "Values of `data.name`, each with its options. `instil methods --kind data` prints the "
        "list.",
        "[Read your data](data.md) explains the sources for files of your own.",
        "",
    ]
    for source in catalogue.cards("data"):
        lines += [f"## `{source['name']}`", "", plain(source["summary"]), ""]
        lines += [plain(source["text"]), ""] if source["text"] else []
        if source["options"]:
            rows = [_source_option(option) for option in source["options"]]
            lines += table(("option", "type", "default", "description"), rows)
    return "\n".join(lines)


def _source_option(option: dict[str, Any]) -> tuple[str, str, str, str]:
    is_required = option["default"] is None and "null" not in option["type"]
    default = "required" if is_required else f"`{value(option['default'])}`"
    return f"`{option['name']}`", cell(option["type"]), default, cell(option["description"])


def shipped_page() -> str:
    """Every shipped recipe with its summary and its file."""
    lines = [
        "# Shipped recipes",
        "",
        "`instil run NAME` runs a shipped recipe, and `instil init NAME` copies it into a file of",
        "your own. `instil recipes` prints this list. [Gains](gains.md) has measured results.",
        "",
    ]
    recipes = packaged.packaged_recipes() | packaged.benchmark_recipes()
    for task, names in groupby(recipes, key=lambda name: name.rpartition("/")[0]):
        lines += [f"## {task.replace('_', ' ').capitalize() or 'First look'}", ""]
        if task.startswith("benchmarks/"):
            lines += [f"Run these by their full name, such as `{task}/NAME`.", ""]
        for name in names:
            text = recipes[name].read_text(encoding="utf-8")
            summary = packaged.summary(recipes[name])
            body = text.partition("\n")[2] if summary else text
            lines += [f"### {name.rpartition('/')[2]} {{: #{recipe_anchor(name)} }}", ""]
            lines += [plain(summary), "", "```yaml", body.strip(), "```", ""]
    return "\n".join(lines)


def recipe_anchor(name: str) -> str:
    """Anchor of a shipped recipe, such as ``classification/kd``, on its page."""
    return f"recipe-{name.replace('/', '-')}"
