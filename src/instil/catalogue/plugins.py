"""Methods and data sources of others: entry points, and the modules that a recipe imports."""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from instil.catalogue.folders import files

GROUP = "instil.methods"
"""Entry point group in which an installed package declares methods of any kind."""

METRICS = "instil.metrics"
"""Entry point group in which an installed package declares metrics."""

Key = tuple[str, str]
"""Kind and name of a method."""

imported: dict[Key, Any] = {}
"""Methods of the modules that recipes have imported."""


def methods() -> dict[Key, Any]:
    """Return all methods that are not the package's own. Those of recipes hide installed ones."""
    # Merged on every call, because a recipe may import modules at any time.
    return {**installed(), **imported}


def add(modules: Iterable[str], folder: Path = Path()) -> None:
    """Import modules and add the methods and data sources that they define.

    Args:
        modules: names of modules in ``folder`` or on the Python path.
        folder: folder of the recipe, which is searched first.

    Raises:
        ValueError: if there is no such module, it defines no method and no function, or a method
            has a name of the package.
        ModuleNotFoundError: if the module itself imports a module that does not exist.
    """
    from instil.catalogue.user_code import import_user_module

    for name in modules:
        try:
            module = import_user_module(name, folder)
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(f"imports: {error}", name=error.name) from error
        except ValueError as error:
            raise ValueError(f"imports: {error}") from error
        new = definitions(module)
        if not new and not _public_functions(module):
            raise ValueError(
                f"imports: '{name}' defines no objective, weighting, balance, scheme, teacher, "
                "task, baseline or metric with a card, no model source, and no function"
            )
        # Checked before the update: a refused module leaves nothing behind.
        _refuse_names_of_package(new, name)
        imported.update(new)


@functools.cache
def installed() -> dict[Key, Any]:
    """Return the methods of other distributions; a broken entry point is skipped with a warning."""
    new: dict[Key, Any] = {}
    for entry in (*entry_points(group=GROUP), *entry_points(group=METRICS)):
        try:
            new.update(_methods_of(entry))
        except Exception as error:  # the code of another package may raise anything
            warnings.warn(
                f"the methods of entry point '{entry.name}' ({entry.value}) were left out: {error}",
                stacklevel=2,
            )
    return new


def classes_with_card(module: ModuleType) -> list[type[Any]]:
    """Return the classes that a module itself defines with a card of their own."""
    return [
        cls
        for cls in vars(module).values()
        # Imported classes and classes that inherit a card are no methods of this module.
        if inspect.isclass(cls) and cls.__module__ == module.__name__ and "card" in vars(cls)
    ]


def data_sources(module: ModuleType) -> dict[str, Callable[..., Any]]:
    """Return the data sources of a module: its public functions annotated to return ``Splits``."""
    functions = {name: getattr(module, name) for name in _public_functions(module)}
    return {name: function for name, function in functions.items() if _returns_splits(function)}


def definitions(module: ModuleType) -> dict[Key, Any]:
    """Return the methods and data sources that a module itself defines."""
    new: dict[Key, Any] = {_key(cls): cls for cls in classes_with_card(module)}
    new.update({("data", name): function for name, function in data_sources(module).items()})
    new.update({("model_source", cls.prefix): cls for cls in _model_sources(module)})
    return new


def _model_sources(module: ModuleType) -> list[type[Any]]:
    """Return the model sources that a module itself defines with a prefix."""
    classes: list[type[Any]] = []
    for cls in vars(module).values():
        is_own = inspect.isclass(cls) and cls.__module__ == module.__name__
        is_source = getattr(cls, "catalogue_kind", "") == "model_source"
        if is_own and is_source and cls.prefix:
            classes.append(cls)
    return classes


def _returns_splits(function: Callable[..., Any]) -> bool:
    """Whether the return annotation is ``instil.data.splits.Splits``, a layer above this one."""
    annotation = function.__annotations__.get("return", "")
    name = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
    return name.strip("'\"").rpartition(".")[2] == "Splits"


def _methods_of(entry: EntryPoint) -> dict[Key, Any]:
    """Return a class or source under its entry point's name, or all of a module or package."""
    value = entry.load()
    if isinstance(value, ModuleType):
        new: dict[Key, Any] = {}
        for module in _modules(value):
            new.update(definitions(module))
    elif inspect.isfunction(value):
        if not _returns_splits(value):
            raise ValueError(
                "a function is a data source. Expected the return annotation Splits "
                "(instil.data.splits.Splits), got none or another one"
            )
        new = {("data", entry.name): value}
    else:
        new = {(_key(value)[0], entry.name): value}
    _refuse_names_of_package(new, entry.value)
    return new


def _modules(package: ModuleType) -> Iterator[ModuleType]:
    yield package
    path = getattr(package, "__path__", [])
    for part in pkgutil.walk_packages(path, package.__name__ + "."):
        yield importlib.import_module(part.name)


def _public_functions(module: ModuleType) -> list[str]:
    """Return the functions that a module defines, such as a data source or a model builder."""
    return [
        name
        for name, value in vars(module).items()
        if inspect.isfunction(value)
        and value.__module__ == module.__name__
        and not name.startswith("_")
    ]


def _refuse_names_of_package(keys: Iterable[Key], origin: str) -> None:
    for kind, name in keys:
        if name in files(kind):
            title = {"data": "data source"}.get(kind, kind.replace("_", " "))
            renamed = {"data": "function", "model_source": "prefix"}.get(kind, "class")
            raise ValueError(
                f"{origin} defines the {title} '{name}', which is one of the package's own; "
                f"rename the {renamed}"
            )


def _key(cls: type[Any]) -> Key:
    """Return kind and name of a class: the file's name if they agree, else its snake case."""
    from instil.core import Balance, Objective, Scheme, Teacher, Weighting

    bases = {
        "objective": Objective,
        "weighting": Weighting,
        "balance": Balance,
        "scheme": Scheme,
        "teacher": Teacher,
    }
    of_class = getattr(cls, "catalogue_kind", "task")
    kind = next((kind for kind, base in bases.items() if issubclass(cls, base)), of_class)
    title = cls.__name__.removesuffix("Baseline") if kind == "baseline" else cls.__name__
    file = cls.__module__.rpartition(".")[2]
    if file.replace("_", "") == title.lower():
        return kind, file
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", title)
    return kind, words.lower()
