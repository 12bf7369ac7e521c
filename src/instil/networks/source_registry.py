"""Registry of model sources: files of ``networks/sources``, imports of recipes, entry points."""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
from importlib.metadata import EntryPoint, entry_points

from instil.catalogue.plugins import methods
from instil.networks import sources
from instil.networks.model_source import ModelSource

GROUP = "instil.model_sources"
"""Entry point group in which an installed package declares model sources."""


@functools.cache
def package_sources() -> tuple[str, ...]:
    """Return the prefixes of this package; imports no source."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(sources.__path__)))


def source_names() -> list[str]:
    """Return all prefixes, with those of installed packages and of imports of recipes."""
    declared = {entry.name for entry in entry_points(group=GROUP)}
    return sorted({*package_sources(), *declared, *_imported()})


def find_source(spec: str) -> ModelSource | None:
    """Return the source of a model, such as ``timm:resnet18``; None for any other prefix.

    Args:
        spec: model as a recipe names it.
    """
    prefix, separator, _ = spec.partition(":")
    if not separator:
        return None
    # Plugins are loaded only for a prefix that the package does not have. The result is not cached:
    # a recipe may import another module with a source of the same prefix.
    imported = None if prefix in package_sources() else _imported().get(prefix)
    return _source(prefix) if imported is None else imported()


def _imported() -> dict[str, type[ModelSource]]:
    """Sources by prefix that recipes have imported, or that packages of methods contain."""
    return {name: cls for (kind, name), cls in methods().items() if kind == "model_source"}


@functools.cache
def _source(prefix: str) -> ModelSource | None:
    if prefix in package_sources():
        module = importlib.import_module(f"instil.networks.sources.{prefix}")
        for value in vars(module).values():
            is_own = inspect.isclass(value) and value.__module__ == module.__name__
            if is_own and issubclass(value, ModelSource):
                return value()  # type: ignore[no-any-return]
    for entry in entry_points(group=GROUP):
        if entry.name == prefix:
            return _declared(entry)
    return None


def _declared(entry: EntryPoint) -> ModelSource:
    """Source of an entry point.

    Raises:
        ValueError: if it cannot be imported or is not a subclass of ``ModelSource``.
    """
    try:
        kind = entry.load()
    except Exception as error:  # the code of another package may raise anything
        raise ValueError(
            f"{entry.name}: the model source {entry.value} cannot be imported: {error}"
        ) from error
    if not (inspect.isclass(kind) and issubclass(kind, ModelSource)):
        raise ValueError(
            f"{entry.name}: {entry.value} is not a model source. Expected a subclass of "
            f"instil.networks.model_source.ModelSource, got {kind!r}"
        )
    return kind()
