"""Folders of methods: which file is which method. Nothing is imported."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

PACKAGE = Path(__file__).parents[1]

FOLDERS = {
    "objective": (
        "objectives.labels",
        "objectives.logits",
        "objectives.features",
        "objectives.relations",
    ),
    "weighting": ("weightings",),
    "balance": ("balances",),
    "scheme": (
        "schemes.offline",
        "schemes.online",
        "schemes.self_distillation",
        "schemes.adversarial",
        "schemes.robust",
        "schemes.data_free",
        "schemes.language",
        "schemes.diffusion",
    ),
    "teacher": ("teachers",),
    "task": ("tasks",),
    "baseline": ("baselines",),
    "metric": ("metrics",),
}
"""Folders of each kind. They hold one method per file and nothing else."""

FUNCTION_FOLDERS = {"data": ("data.sources",)}
"""Folders of the kinds whose members are functions without a card, named like their files."""

PREFIX_FOLDERS = {"model_source": ("networks.sources",)}
"""Folders of the kinds whose members are classes without a card, found by their prefix."""


def kinds() -> tuple[str, ...]:
    """Return the kinds whose members have a card, such as objective, scheme and task."""
    return tuple(FOLDERS)


@functools.cache
def files(kind: str) -> dict[str, str]:
    """Return the module of each method of the package, by name; imports nothing.

    Raises:
        ValueError: for an unknown kind.
    """
    folders = FOLDERS | FUNCTION_FOLDERS | PREFIX_FOLDERS
    if kind not in folders:
        from instil.cards.closest import did_you_mean

        raise ValueError(
            f"No kind of method is named '{kind}'. Expected one of {', '.join(folders)}."
            f"{did_you_mean(kind, folders)}"
        )
    modules = {}
    for folder in folders[kind]:
        for path in sorted((PACKAGE / folder.replace(".", "/")).glob("[!_]*.py")):
            modules[path.stem] = f"instil.{folder}.{path.stem}"
    return modules


@functools.cache
def losses() -> dict[str, str]:
    """Return the module of each public loss function of the objectives; imports nothing."""
    modules = {}
    for module in files("objective").values():
        path = PACKAGE.parent / f"{module.replace('.', '/')}.py"
        # Parsed instead of imported: an import of all methods would load torch and take seconds.
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and _is_public_loss(node.name):
                modules[node.name] = module
    return modules


def _is_public_loss(name: str) -> bool:
    return name.endswith("_loss") and not name.startswith("_")
