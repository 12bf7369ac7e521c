"""Catalogue on the terminal: all methods, or the card of one."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Any

from instil import catalogue

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

Method = dict[str, Any]


def select(name: str | None = None, kind: str | None = None) -> list[Method]:
    """Return the descriptions of methods.

    Args:
        name: name of a method; methods of two kinds may share it. None: all methods.
        kind: kind of the methods. None: all kinds.

    Raises:
        ValueError: for an unknown kind or name, with the closest names.
    """
    if kind is not None:
        catalogue.files(kind)
    if name is None:
        return catalogue.cards(kind)
    kinds = [kind] if kind else list(catalogue.kinds())
    methods = [catalogue.describe(each, name) for each in kinds if name in catalogue.names(each)]
    if not methods:
        from instil.cards import suggestion

        names: list[str] = []
        for each in kinds:
            names += catalogue.names(each)
        raise ValueError(f"No {kind or 'method'} named '{name}'.{suggestion(name, names)}")
    return methods


def show_all(methods: list[Method], console: Console) -> None:
    """Print the idea of each method in a sentence, grouped by kind and source.

    The list is readable from a width of 60 columns.
    """
    from rich.table import Table
    from rich.text import Text

    for title, group in groupby(sorted(methods, key=_rank), key=_group):
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True)
        table.add_column()
        for method in sorted(group, key=lambda method: str(method["name"])):
            mark = " *" if method["couples"] else ""
            sentence = Text(method["idea"].replace("``", ""))
            if _published(method):
                sentence.append(f" ({_published(method)})", style="dim")
            table.add_row(Text(method["name"], style="bold") + Text(mark), sentence)
        console.print(f"[bold underline]{title}[/]", highlight=False)
        console.print(table)
        console.print()
    console.print(
        "* The loss of one sample depends on the others in its batch.\n"
        "One method, its options and pitfalls: instil methods NAME. For programs: --json.",
        style="dim",
        highlight=False,
    )


LABELLED_KINDS = ("objective", "task", "metric")
"""Kinds of methods whose cards declare kinds of labels."""
SOURCES = ("labels", "logits", "features", "relations", "offline", "online", "self", "")


def _rank(method: Method) -> tuple[int, int]:
    """Return the sort key of a method's group."""
    source = method["source"] if method["kind"] in ("objective", "scheme") else ""
    return catalogue.kinds().index(method["kind"]), SOURCES.index(source)


def _group(method: Method) -> str:
    """Return the heading of a method's group, such as ``objectives on logits``."""
    kind, source = method["kind"], method["source"]
    if kind == "objective":
        return f"objectives on {source}"
    if kind == "scheme":
        return f"schemes, {source} distillation"
    return f"{kind}s"


def show_one(method: Method, console: Console) -> None:
    """Print card, options and functions of a method."""
    from rich.markup import escape

    console.print(
        f"[bold]{method['name']}[/], {method['kind']}: {escape(method['title'])}", highlight=False
    )
    for text in (
        ", ".join(part for part in (_published(method), method["paper"]) if part),
        method["idea"],
        method["text"],
    ):
        if text:
            console.print(text.replace("``", ""), markup=False, highlight=False)
    for label, text in _facts(method):
        console.print(f"[bold]{label}[/]: {escape(text)}", highlight=False)
    if method["options"]:
        table = _table("option", "type", "default", "description")
        for option in method["options"]:
            table.add_row(
                f"[bold]{option['name']}[/]",
                *map(
                    escape,
                    (option["type"], _default(option), option["description"].replace("``", "")),
                ),
            )
        console.print(table)
    for function in method["functions"]:
        console.print(
            f"[bold]{function['path']}[/]{escape(function['signature'])}", highlight=False
        )
        console.print(function["text"].replace("``", ""), markup=False, highlight=False)
    console.print(f"[bold]in a recipe[/]: {escape(example(method))}", highlight=False)


def example(method: Method) -> str:
    """Return the line of a recipe that uses a method."""
    numbers = [
        option
        for option in method["options"]
        if isinstance(option["default"], (int, float))
        and not isinstance(option["default"], bool)
        and "." not in option["name"]
    ]
    options = ", ".join(f"{option['name']}: {option['default']}" for option in numbers[:3])
    if method["kind"] == "objective":
        return f"objectives: {{{method['name']}: {{{options}}}}}"
    if method["kind"] == "scheme":
        return f"scheme: {{type: {method['name']}{', ' if options else ''}{options}}}"
    lines = {
        "task": f"task: {method['name']}",
        "metric": f"metrics: {{{method['name']}: {{{options}}}}}",
    }
    return lines.get(method["kind"], "built by the teacher section of a recipe, or in Python")


def weight_text(method: Method) -> str:
    """Return the published weight of an objective with its setting; empty if there is none.

    Example:
        >>> weight_text({"published_weight": 30000.0, "weight_setting": "batches of 64"})
        '30000 (batches of 64)'
    """
    weight = method["published_weight"]
    return "" if weight is None else f"{weight:g} ({method['weight_setting']})"


def _facts(method: Method) -> Iterator[tuple[str, str]]:
    needs = [
        f"{' and '.join(roles)} of the {side}" for side, roles in method["needs"].items() if roles
    ]
    facts = {
        "source": method["source"],
        "algorithms": ", ".join(method["algorithms"]),
        "tasks": ", ".join(method["tasks"]),
        "labels": ", ".join(method["labels"]) if method["kind"] in LABELLED_KINDS else "",
        "feature grids": ", ".join(method["grids"]),
        "needs": "; ".join(needs),
        "couples": "an item's loss depends on the others in its batch" if method["couples"] else "",
        "published weight": weight_text(method),
        "when to use": method["use"],
        "pitfalls": method["pitfalls"],
        "differences from the paper": method["deviations"],
        "defined in": method["defined"],
    }
    return ((label, text) for label, text in facts.items() if text)


def _table(*columns: str, title: str = "") -> Table:
    from rich import box
    from rich.table import Table

    table = Table(
        title=title or None,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        title_style="bold",
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    for column in columns:
        table.add_column(
            column, overflow="fold", no_wrap=column in ("name", "source", "algorithms", "option")
        )
    return table


def _published(method: Method) -> str:
    return f"{method['venue']} {method['year'] or ''}".strip()


def _default(option: dict[str, Any]) -> str:
    return (
        "" if option["default"] is None and "null" not in option["type"] else str(option["default"])
    )
