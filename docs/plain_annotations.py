"""Griffe extension for annotations and examples in the API reference.

``Annotated[float, Gt(0), Doc("...")]`` is shown as ``float``: the text of ``Doc`` is in the tables
of parameters already. Sections named ``Example`` are shown as code.
"""

from __future__ import annotations

import re
from typing import Any

from griffe import (
    DocstringSectionKind,
    Expr,
    ExprSubscript,
    ExprTuple,
    Extension,
    Function,
    GriffeLoader,
    Module,
    Object,
)


class PlainAnnotations(Extension):
    """Removes ``Annotated`` from parameters and their tables, and marks examples."""

    def on_instance(self, *, obj: Object, **kwargs: Any) -> None:
        """Rename the section ``Example`` to the name that griffe's parser knows."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(
                r"^( *)Example:$", r"\1Examples:", obj.docstring.value, flags=re.MULTILINE
            )

    def on_package(self, *, pkg: Module, loader: GriffeLoader, **kwargs: Any) -> None:
        """Process a package after ``griffe_typingdoc`` has read the annotations."""
        self._process(pkg)

    def _process(self, item: Object) -> None:
        if isinstance(item, Function):
            _simplify(item)
        for member in item.members.values():
            if not member.is_alias:
                self._process(member)


def _simplify(function: Function) -> None:
    for parameter in function.parameters:
        parameter.annotation = _plain(parameter.annotation)
    for section in function.docstring.parsed if function.docstring else ():
        if section.kind is DocstringSectionKind.parameters:
            for row in section.value:
                row.annotation = _plain(row.annotation)


def _plain(annotation: str | Expr | None) -> str | Expr | None:
    """First argument of ``Annotated``; any other annotation unchanged."""
    is_annotated = (
        isinstance(annotation, ExprSubscript)
        and annotation.canonical_path.rpartition(".")[2] == "Annotated"
        and isinstance(annotation.slice, ExprTuple)
    )
    return _plain(annotation.slice.elements[0]) if is_annotated else annotation
