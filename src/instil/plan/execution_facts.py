"""Code, versions and hardware on which the bits of a trained network depend."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
from collections.abc import Iterable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import torch

import instil
from instil.engine import init_distributed, world_size
from instil.recipe.sections import Recipe

PLUGIN_GROUPS = ("instil.methods", "instil.metrics", "instil.models", "instil.model_sources")
"""Entry point groups of packages whose code a training may execute."""


def execution_facts(recipe: Recipe) -> dict[str, Any]:
    """Return code, versions and hardware on which the bits of a training depend.

    Args:
        recipe: recipe of the training.
    """
    device = init_distributed()
    is_cuda = device.type == "cuda"
    return {
        "code": package_digest(),
        "plugins": _plugin_digest(),
        "user_code": _digest(_files_of_sources(recipe)),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if is_cuda else device.type,
        "ranks": world_size(),
        # Another number of threads adds floating-point numbers in another order.
        "threads": torch.get_num_threads(),
    }


@functools.cache
def package_digest() -> str:
    """Return the hash of all source files of this package."""
    return _digest(Path(instil.__path__[0]).rglob("*.py"))


@functools.cache
def _plugin_digest() -> str:
    """Return the hash of the source files of all installed plugins."""
    names: set[str] = set()
    for group in PLUGIN_GROUPS:
        names |= {entry.module.partition(".")[0] for entry in entry_points(group=group)}
    files: list[Path] = []
    for name in sorted(names):
        spec = importlib.util.find_spec(name)
        if spec is None:
            continue
        for folder in spec.submodule_search_locations or ():
            files += Path(folder).rglob("*.py")
        if spec.origin is not None:
            files.append(Path(spec.origin))
    return _digest(files)


def _files_of_sources(recipe: Recipe) -> list[Path]:
    """Return the user's modules with the data sources of a recipe, as ``module:function``.

    The data are hashed by their content, but such a module may also define augmentation.
    """
    own = [spec.data.name for spec in recipe.teachers if spec.data is not None]
    modules = [name.partition(":")[0] for name in (recipe.data.name, *own) if name and ":" in name]
    paths = [Path(recipe.folder, *module.split(".")).with_suffix(".py") for module in modules]
    return [path for path in paths if path.is_file()]


def _digest(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in sorted(set(files)):
        content = path.read_bytes()
        digest.update(f"{path.name} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()
