"""Recipes that the package ships: their names, files and one-sentence summaries."""

from __future__ import annotations

from pathlib import Path

from instil.cards import suggestion
from instil.recipe.errors import RecipeError

FOLDER = Path(__file__).parents[1] / "recipes"


class UnknownRecipe(RecipeError):
    """Name of a recipe that the package does not have."""


def packaged_recipes() -> dict[str, Path]:
    """Files of all shipped recipes by their full name, such as ``classification/kd``.

    The recipe ``digits``, which is the default of ``instil run``, belongs to no task folder and
    comes first.
    """
    top = sorted(FOLDER.glob("*.yaml"))
    nested = sorted(FOLDER.glob("*/*.yaml"))
    return {path.relative_to(FOLDER).with_suffix("").as_posix(): path for path in [*top, *nested]}


def benchmark_recipes() -> dict[str, Path]:
    """Files of the recipes of standard protocols, such as ``benchmarks/cifar100/kd``.

    They need data of the user and hours of training, so they are not in ``packaged_recipes``.
    """
    paths = sorted(FOLDER.glob("benchmarks/*/*.yaml"))
    return {path.relative_to(FOLDER).with_suffix("").as_posix(): path for path in paths}


def is_packaged(path: Path) -> bool:
    """Whether ``path`` is a recipe file of the package."""
    return FOLDER in path.parents


def find_packaged(name: str) -> Path:
    """Return the file of a shipped recipe.

    Args:
        name: ``kd`` or, with its task, ``classification/kd``; the suffix ``.yaml`` is optional.
            A benchmark has its full name, such as ``benchmarks/cifar100/kd``.

    Raises:
        UnknownRecipe: if no shipped recipe has this name.
    """
    by_name = packaged_recipes()
    short_name = name.removesuffix(".yaml").removesuffix(".yml")
    benchmarks = benchmark_recipes()
    if short_name in by_name or short_name in benchmarks:
        return by_name.get(short_name) or benchmarks[short_name]
    matches = [path for full_name, path in by_name.items() if full_name.endswith(f"/{short_name}")]
    if len(matches) == 1:
        return matches[0]
    short_names = [full_name.rpartition("/")[2] for full_name in by_name]
    known_names = list(dict.fromkeys([*short_names, *by_name, *benchmarks]))
    raise UnknownRecipe(
        f"No recipe named '{name}', and no such file. `instil recipes` lists all recipes."
        f"{suggestion(name, known_names)}"
    )


def summary(path: Path) -> str:
    """Return the first comment line of a recipe file, its summary; empty if it has none."""
    first_line = path.read_text(encoding="utf-8").partition("\n")[0]
    return first_line.removeprefix("#").strip() if first_line.startswith("#") else ""
