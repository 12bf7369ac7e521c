"""Data sources on the terminal: all sources, or the options of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


def is_source(name: str) -> bool:
    """Whether a data source has this name, and no method."""
    from instil import catalogue

    is_method = any(name in catalogue.names(kind) for kind in catalogue.kinds())
    return name in catalogue.names("data") and not is_method


def select_sources(name: str | None) -> list[dict[str, Any]]:
    """Return the descriptions of all data sources, or of one.

    Raises:
        UnknownSource: if no source has this name.
    """
    from instil import catalogue
    from instil.experiment.source_functions import source_function

    if name is None:
        return catalogue.cards("data")
    source_function(name)
    return [catalogue.describe("data", name)]


def show_sources(sources: list[dict[str, Any]], console: Console) -> None:
    """Print a sentence for each source, or the full description of a single one.

    Args:
        sources: descriptions by ``catalogue.describe``.
        console: console to print to.
    """
    from rich.table import Table
    from rich.text import Text

    if len(sources) == 1:
        _show_source(sources[0], console)
        return
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column()
    for source in sources:
        table.add_row(Text(source["name"], style="bold"), Text(_plain(source["summary"])))
    console.print("[bold underline]data sources[/]", highlight=False)
    console.print(table)
    console.print(
        "\nOptions of one source: instil methods NAME. A function of your own: "
        "data.name=my_module:function",
        style="dim",
        highlight=False,
    )


def _show_source(source: dict[str, Any], console: Console) -> None:
    from rich.text import Text

    console.print(Text.assemble((source["name"], "bold"), ", data source"))
    for text in (source["summary"], source["text"]):
        if text:
            console.print(_plain(text), markup=False, highlight=False)
    for option in source["options"]:
        has_default = option["default"] is not None or "null" in option["type"]
        default = f", default {_default_text(option['default'])}" if has_default else ""
        console.print(Text.assemble((option["name"], "bold"), f": {option['type']}{default}"))
        if option["description"]:
            console.print(f"    {_plain(option['description'])}", markup=False, highlight=False)
    option = source["options"][0]["name"] if source["options"] else ""
    example = f"{source['name']}:{option.upper()}" if option == "path" else source["name"]
    console.print(f'in a recipe: data: {{name: "{example}"}}', markup=False, highlight=False)


def _default_text(value: Any) -> str:
    import json

    return json.dumps(value)


def _plain(text: str) -> str:
    return text.replace("``", "")
