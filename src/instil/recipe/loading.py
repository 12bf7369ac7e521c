"""Recipes from YAML files, run folders, the package and plain data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from instil import catalogue
from instil.cards import form_of, suggestion
from instil.catalogue.signatures import plain
from instil.catalogue.user_code import UntrustedCode
from instil.recipe.checking import parse_recipe, validation_errors
from instil.recipe.defaults import resolve_defaults
from instil.recipe.errors import RecipeError
from instil.recipe.overrides import override
from instil.recipe.packaged import (
    benchmark_recipes,
    find_packaged,
    is_packaged,
    packaged_recipes,
)
from instil.recipe.renamed import renamed_keys
from instil.recipe.run_packages import missing_packages
from instil.recipe.sections import Recipe
from instil.recipe.short_forms import expand_short_forms
from instil.recipe.stages import reference_errors, round_errors, stage_errors
from instil.recipe.yaml_text import check_keys, read_yaml, to_text

YAML_SUFFIXES = (".yaml", ".yml")
FINGERPRINT_DIGITS = 16


def load(where: str | Path, overrides: Iterable[str] = (), trust_code: bool = True) -> Recipe:
    """Load a recipe.

    Args:
        where: YAML file, run folder, or name of a recipe of the package.
        overrides: ``key=value`` changes.
        trust_code: execute the modules of ``imports``. Without it, a recipe that has any is
            refused.

    Raises:
        RecipeError: with one line per problem.
        FileNotFoundError: if there is no such file.
        UntrustedCode: for a recipe with ``imports`` that is not trusted.
    """
    path = _recipe_path(where)
    data = read_yaml(path)
    if not isinstance(data, dict):
        raise RecipeError(
            f"{path}: a recipe is a mapping with the keys data, student, objectives ..., "
            f"not {form_of(data)}"
        )
    data = expand_short_forms(data)
    # One after another: scheme=on_policy creates the section that scheme.share=1 changes.
    for change in overrides:
        data = expand_short_forms(override(data, [change]))
    folder = "." if is_packaged(path) else str(path.resolve().parent)
    data = {"name": path.stem, "folder": folder} | data
    if data.get("imports") and not trust_code:
        raise UntrustedCode(f"{path}: imports", _joined(data["imports"]), Path(str(data["folder"])))
    try:
        return build(data)
    except RecipeError as error:
        if packages := missing_packages(path.parent):
            raise RecipeError(f"{error}\n{packages}") from error
        raise


def _joined(imports: Any) -> str:
    return ", ".join(map(str, imports)) if isinstance(imports, list) else str(imports)


def _recipe_path(where: str | Path) -> Path:
    path = Path(where)
    if path.is_dir():
        path = path / "recipe.yaml"
    if path.is_file():
        return path
    if str(where) in packaged_recipes() or str(where) in benchmark_recipes():
        return find_packaged(str(where))
    if path.suffix in YAML_SUFFIXES or len(path.parts) > 1:
        neighbours = []
        if path.parent.is_dir():
            neighbours = [
                file.name for file in path.parent.iterdir() if file.suffix in YAML_SUFFIXES
            ]
        raise FileNotFoundError(f"no such recipe: {path}.{suggestion(path.name, neighbours)}")
    return find_packaged(str(where))


def build(data: Mapping[str, Any]) -> Recipe:
    """Build a recipe from plain data, with all defaults.

    Raises:
        RecipeError: with one line per problem.
    """
    check_keys(data, "recipe")
    data = expand_short_forms(data)
    if isinstance(data.get("imports"), list):
        _import(data["imports"], Path(data.get("folder", ".")))
    whole = resolve_defaults(data)
    lines = [
        *renamed_keys(whole),
        *validation_errors(whole),
        *reference_errors(whole),
        *stage_errors(whole),
    ]
    messages = _first_of_each_path("\n".join(lines).splitlines())
    if messages:
        raise RecipeError("\n".join(messages))
    recipe = parse_recipe(whole)
    if messages := round_errors(recipe):
        raise RecipeError("\n".join(messages))
    return recipe


def _first_of_each_path(lines: Iterable[str]) -> list[str]:
    """Return the first line of each recipe path.

    Errors of ``train`` are not repeated for ``teacher_train``, which inherits it.
    """
    first: dict[str, str] = {}
    for line in lines:
        # One error per path: later ones are mostly consequences of the first.
        first.setdefault(line.partition(": ")[0], line)
    return [
        line
        for path, line in first.items()
        if not (path.startswith("teacher_train.") and path.removeprefix("teacher_") in first)
    ]


def _import(names: list[Any], folder: Path) -> None:
    try:
        catalogue.add([str(name) for name in names], folder)
    except ValueError as error:
        raise RecipeError(str(error)) from error


def to_yaml(recipe: Recipe) -> str:
    """Return a recipe with all its defaults as YAML, which ``load`` reads to the same recipe."""
    data = recipe.model_dump(mode="json")
    return to_text(data, sort_keys=False, allow_unicode=True, width=120)


def fingerprint(*sections: BaseModel | Mapping[str, Any] | list[Any] | str | int | None) -> str:
    """Return 16 hexadecimal digits that depend on the content of the sections only."""
    # Sorted: the order of keys in a file must not change a fingerprint.
    text = json.dumps([_plain(section) for section in sections], sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()[:FINGERPRINT_DIGITS]


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    return value if isinstance(value, (Mapping, list, str, int, type(None))) else plain(value)
