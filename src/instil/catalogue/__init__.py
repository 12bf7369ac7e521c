"""The folder is the registry: finds methods in the package's folders, in entry points and in modules that a recipe imports."""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
import re
import sys
import warnings
from collections.abc import Iterable, Iterator
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

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
    ),
    "teacher": ("teachers",),
    "task": ("tasks",),
}
GROUP = "instil.methods"

_imported: dict[tuple[str, str], type] = {}


def kinds() -> tuple[str, ...]:
    """objective, weighting, balance, scheme, teacher, task."""
    return tuple(FOLDERS)


@functools.cache
def files(kind: str) -> dict[str, str]:
    """Name -> module of the package's own methods of one kind; imports nothing."""
    if kind not in FOLDERS:
        raise ValueError(f"No kind of method is named '{kind}'; known: {', '.join(FOLDERS)}")
    found: dict[str, str] = {}
    for folder in FOLDERS[kind]:
        for path in sorted((Path(__file__).parents[1] / folder.replace(".", "/")).glob("[!_]*.py")):
            if re.search(r"^    card\b.*=", path.read_text(encoding="utf-8"), re.MULTILINE):
                found[path.stem] = f"instil.{folder}.{path.stem}"
    return found


@functools.cache
def losses() -> dict[str, str]:
    """Name -> module of the plain loss functions of the package's objectives; imports nothing."""
    found: dict[str, str] = {}
    for module in files("objective").values():
        text = (Path(__file__).parents[2] / f"{module.replace('.', '/')}.py").read_text(
            encoding="utf-8"
        )
        found |= dict.fromkeys(re.findall(r"^def ([a-z]\w*_loss)\(", text, re.MULTILINE), module)
    return found


def names(kind: str) -> list[str]:
    """All names of one kind; loads third parties' methods, if there are any, but none of the package's own."""
    others = [name for other, name in (*_imported, *_installed()) if other == kind]
    return sorted({*files(kind), *others})


def find(kind: str, name: str) -> type[Any]:
    """The class of a method; ValueError with the closest names where there is none."""
    if module := files(kind).get(name):
        return _cards_in(importlib.import_module(module))[0]
    if found := (_imported.get((kind, name)) or _installed().get((kind, name))):
        return found
    raise ValueError(unknown(kind, name))


def named(kind: str, class_name: str) -> type[Any] | None:
    """The package's method of this class name; imports only the file that bears it."""
    for name in files(kind):
        if class_name[:1].isupper() and name.replace("_", "") == class_name.lower():
            return find(kind, name)
    return None


def unknown(kind: str, name: str) -> str:
    """The message about a name that is in no folder."""
    from instil.core import closest

    elsewhere = [other for other in kinds() if other != kind and name in names(other)]
    hint = (
        f"'{name}' is {'an' if elsewhere[0][0] in 'aeiou' else 'a'} {elsewhere[0]}"
        if elsewhere
        else closest(name, names(kind))
    )
    return f"No {kind} named '{name}'; {hint}"


def add(modules: Iterable[str], folder: Path = Path()) -> None:
    """Import these modules, looking in ``folder`` first, and add the methods defined in them.

    Raises ValueError where a module cannot be found, defines no method, or takes a name of the package.
    """
    from instil.catalogue.user_code import import_user_module

    for name in modules:
        try:
            module = import_user_module(name, folder)
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(f"imports: {error}", name=error.name) from error
        except ValueError as error:
            raise ValueError(f"imports: {error}") from error
        found = {_key(cls): cls for cls in _cards_in(module)}
        if not found and not _functions_in(module):
            raise ValueError(
                f"imports: '{name}' defines no objective, weighting, balance, scheme, teacher or task with a card, and no function"
            )
        _refuse_taken(found, name)
        _imported.update(found)


def _functions_in(module: ModuleType) -> list[str]:
    """Public functions that a module defines, such as a data source or the builder of a model."""
    return [
        name
        for name, value in vars(module).items()
        if inspect.isfunction(value)
        and value.__module__ == module.__name__
        and not name.startswith("_")
    ]


def describe(kind: str, name: str) -> dict[str, Any]:
    """One method's card, options and place as plain data."""
    from instil.catalogue.signatures import described

    cls = find(kind, name)
    card, needs = cls.card, getattr(cls, "needs", {})
    return {
        "name": name,
        "kind": kind,
        "title": card.title,
        "source": card.source,
        "algorithms": list(card.algorithms),
        "tasks": list(card.tasks),
        "labels": list(card.labels),
        "couples": card.couples,
        "options": described(cls),
        "paper": card.paper,
        "venue": card.venue,
        "year": card.year,
        "deviations": card.deviations,
        "equation": card.equation,
        "use": card.use,
        "pitfalls": card.pitfalls,
        "needs": {side: [" or ".join(roles) for roles in wanted] for side, wanted in needs.items()},
        "idea": inspect.cleandoc(sys.modules[cls.__module__].__doc__ or ""),
        "text": inspect.cleandoc(cls.__dict__.get("__doc__") or ""),
        "functions": _functions(cls),
        "defined": f"{cls.__module__}.{cls.__qualname__}",
    }


def _functions(cls: type) -> list[dict[str, str]]:
    """The plain functions behind a method; behind an alias, those of the method that it is."""
    found = [
        value
        for name, value in vars(sys.modules[cls.__module__]).items()
        if name.endswith("_loss") and inspect.isfunction(value)
    ]
    own = [function for function in found if function.__module__ == cls.__module__]
    if not own and cls.__base__ is not None and "card" in vars(cls.__base__):
        return _functions(cls.__base__)
    return [
        {
            "name": one.__name__,
            "signature": _bare(str(inspect.signature(one))),
            "text": inspect.getdoc(one) or "",
        }
        for one in own
    ]


def _bare(signature: str) -> str:
    """A signature whose annotations are no strings."""
    return re.sub(r"(: |-> )'([^']*)'", r"\1\2", signature)


def cards(kind: str | None = None) -> list[dict[str, Any]]:
    """Every method, of one kind or of all, as ``describe`` gives it."""
    return [describe(each, name) for each in ([kind] if kind else kinds()) for name in names(each)]


@functools.cache
def _installed() -> dict[tuple[str, str], type]:
    """Methods that other distributions offer; one that cannot be imported is skipped with a warning."""
    found: dict[tuple[str, str], type] = {}
    for entry in entry_points(group=GROUP):
        try:
            found.update(_offered(entry))
        except Exception as error:
            warnings.warn(
                f"the methods of entry point '{entry.name}' ({entry.value}) were left out: {error}",
                stacklevel=2,
            )
    return found


def _offered(entry: EntryPoint) -> dict[tuple[str, str], type]:
    """A class under its entry point's name, or all methods of a module or package."""
    value = entry.load()
    if isinstance(value, ModuleType):
        found = {_key(cls): cls for module in _modules(value) for cls in _cards_in(module)}
    else:
        found = {(_key(value)[0], entry.name): value}
    _refuse_taken(found, entry.value)
    return found


def _modules(package: ModuleType) -> Iterator[ModuleType]:
    yield package
    for part in pkgutil.walk_packages(getattr(package, "__path__", []), package.__name__ + "."):
        yield importlib.import_module(part.name)


def _refuse_taken(found: Iterable[tuple[str, str]], where: str) -> None:
    for kind, name in found:
        if name in files(kind):
            raise ValueError(
                f"{where} defines the {kind} '{name}', which is one of the package's own; rename the class"
            )


def _cards_in(module: ModuleType) -> list[type]:
    """The classes that a module itself defines with a card of their own."""
    return [
        cls
        for cls in vars(module).values()
        if inspect.isclass(cls) and cls.__module__ == module.__name__ and "card" in vars(cls)
    ]


def _key(cls: type) -> tuple[str, str]:
    """Kind and name of a third party's class: its file's name where they agree, else its own name in snake case."""
    from instil.core import Balance, Objective, Scheme, Teacher, Weighting

    bases = {
        "objective": Objective,
        "weighting": Weighting,
        "balance": Balance,
        "scheme": Scheme,
        "teacher": Teacher,
    }
    kind = next((kind for kind, base in bases.items() if issubclass(cls, base)), "task")
    file = cls.__module__.rpartition(".")[2]
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", cls.__name__).lower()
    return kind, file if file.replace("_", "") == cls.__name__.lower() else snake
