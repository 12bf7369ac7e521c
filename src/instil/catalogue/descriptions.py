"""Descriptions of methods as plain data, for the command line, the docs and the report."""

from __future__ import annotations

import inspect
import itertools
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

from instil.catalogue.folders import kinds
from instil.catalogue.registry import find, names

CARD_FIELDS = (
    "title",
    "source",
    "couples",
    "paper",
    "venue",
    "year",
    "published_weight",
    "weight_setting",
    "deviations",
    "equation",
    "use",
    "pitfalls",
)
CARD_LISTS = ("algorithms", "tasks", "labels")


def describe(kind: str, name: str) -> dict[str, Any]:
    """Return card, options, needs and functions of one method.

    A data source (kind ``data``) has ``name``, ``kind``, ``summary`` (first sentence), ``text``
    (the rest of the description, without Args, Returns and Raises), ``options`` and ``defined``.

    Raises:
        ValueError: if there is no such method.
    """
    from instil.catalogue.signatures import described

    cls = find(kind, name)
    if kind == "data":
        return _described_source(name, cls)
    needs = _needs(kind, cls)
    return {
        "name": name,
        "kind": kind,
        **{field: getattr(cls.card, field) for field in CARD_FIELDS},
        **{field: list(getattr(cls.card, field)) for field in CARD_LISTS},
        "grids": list(cls.card.grids) if _reads_features(needs) else [],
        "options": described(cls),
        "needs": {side: [" or ".join(roles) for roles in groups] for side, groups in needs.items()},
        "idea": inspect.cleandoc(sys.modules[cls.__module__].__doc__ or ""),
        "text": inspect.cleandoc(cls.__dict__.get("__doc__") or ""),
        "functions": _functions(cls),
        "defined": f"{cls.__module__}.{cls.__qualname__}",
    }


def _needs(kind: str, cls: type[Any]) -> Mapping[str, Any]:
    """Roles that a method reads, by side; a metric reads roles of the evaluated network."""
    if kind == "metric":
        return {"student": tuple((role,) for role in cls.roles)}
    needs: Mapping[str, Any] = getattr(cls, "needs", {})
    return needs


def roles_read() -> set[str]:
    """Return the roles that the methods of the catalogue read; imports all of them."""
    roles: set[str] = set()
    for kind in kinds():
        for name in names(kind):
            for groups in _needs(kind, find(kind, name)).values():
                roles.update(itertools.chain(*groups))
    return roles


def _reads_features(needs: Mapping[str, Any]) -> bool:
    """Whether a method reads feature levels of a side."""
    return any("features" in itertools.chain(*groups) for groups in needs.values())


def cards(kind: str | None = None) -> list[dict[str, Any]]:
    """Return the descriptions of all methods with a card, or of all of one kind."""
    descriptions = []
    for each in [kind] if kind else kinds():
        descriptions += [describe(each, name) for name in names(each)]
    return descriptions


def _described_source(name: str, function: Callable[..., Any]) -> dict[str, Any]:
    from instil.catalogue.signatures import described

    paragraphs = inspect.cleandoc(function.__doc__ or "").split("\n\n")
    sections = ("Args:", "Returns:", "Raises", "Example:")
    text = [_joined(part) for part in paragraphs[1:] if not part.startswith(sections)]
    return {
        "name": name,
        "kind": "data",
        "summary": paragraphs[0].replace("\n", " "),
        "text": "\n\n".join(text),
        "options": described(function),
        "defined": f"{function.__module__}.{function.__qualname__}",
    }


def _joined(paragraph: str) -> str:
    """Paragraph in one line; each item of a list keeps its own line."""
    return re.sub(r"\s*\n(?!- )\s*", " ", paragraph)


def _functions(cls: type[Any]) -> list[dict[str, str]]:
    """Return the loss functions of a method; those of its base if the class is an alias."""
    losses = [
        value
        for name, value in vars(sys.modules[cls.__module__]).items()
        if name.endswith("_loss") and inspect.isfunction(value)
    ]
    own = [function for function in losses if function.__module__ == cls.__module__]
    if not own and cls.__base__ is not None and "card" in vars(cls.__base__):
        return _functions(cls.__base__)
    return [
        {
            "name": function.__name__,
            "path": _path_of(function),
            "signature": _without_quotes(str(inspect.signature(function))),
            "text": inspect.getdoc(function) or "",
        }
        for function in own
    ]


def _path_of(function: Callable[..., Any]) -> str:
    """Return where a function is imported from: instil itself, or the module of a user."""
    module = function.__module__
    return f"{'instil' if module.startswith('instil.') else module}.{function.__name__}"


def _without_quotes(signature: str) -> str:
    """Return a signature whose postponed annotations stand without quotes."""
    return re.sub(r"(: |-> )'([^']*)'", r"\1\2", signature)
