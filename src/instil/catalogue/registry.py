"""The folder is the registry: names of methods, and their classes.

A method is one file in a folder of its kind. Methods of other packages come from entry points, and
those of a user from the modules that a recipe imports (see ``plugins``).
"""

from __future__ import annotations

import importlib
from typing import Any

from instil.catalogue.folders import FUNCTION_FOLDERS, files, kinds
from instil.catalogue.plugins import classes_with_card, methods


def names(kind: str) -> list[str]:
    """Return all names of one kind, with those of plugins; imports no method of the package."""
    return sorted({*files(kind), *(name for other, name in methods() if other == kind)})


def find(kind: str, name: str) -> Any:
    """Return the class of a method, or the function of a data source (kind ``data``).

    Raises:
        ValueError: if there is no such method. The message has the closest names.
    """
    # The package's own files first, so that entry points are not loaded for them.
    if module := files(kind).get(name):
        code = importlib.import_module(module)
        return getattr(code, name) if kind in FUNCTION_FOLDERS else classes_with_card(code)[0]
    if method := methods().get((kind, name)):
        return method
    raise ValueError(unknown(kind, name))


def named(kind: str, class_name: str) -> type[Any] | None:
    """Return the package's method with this class name, or None; imports only its file."""
    if not class_name[:1].isupper():
        return None
    for name in files(kind):
        if name.replace("_", "") == class_name.lower():
            method: type[Any] = find(kind, name)
            return method
    return None


def unknown(kind: str, name: str) -> str:
    """Return the error message for a name that no method of this kind has."""
    from instil.cards import suggestion

    other_kinds = [other for other in kinds() if other != kind and name in names(other)]
    if not other_kinds:
        # The function of an objective is not its name.
        return f"No {kind} named '{name}'.{suggestion(name.removesuffix('_loss'), names(kind))}"
    article = "an" if other_kinds[0][0] in "aeiou" else "a"
    return f"No {kind} named '{name}'; '{name}' is {article} {other_kinds[0]}"
