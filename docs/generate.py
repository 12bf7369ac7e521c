"""Pages of the documentation that are generated from the package and from measured numbers.

``mkdocs build`` calls this module through ``docs/hooks.py``; no generated page is committed.
To read the pages as Markdown: python docs/generate.py FOLDER
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import api_pages
import measured
import method_pages
import modality_tables
import recipe_pages
import reported_pages

from instil import catalogue

OPTIONS = ("depth",)
"""Names of methods that pages use for an option of networks, and which are not linked."""


def pages() -> dict[str, str]:
    """Text of every generated page by its path below ``docs``."""
    cards = catalogue.cards()
    return {
        "methods.md": method_pages.overview(cards),
        "methods_by_property.md": method_pages.by_property(cards),
        **{method_pages.path(card): method_pages.page(card) for card in cards},
        "recipe_keys.md": recipe_pages.keys_page(),
        "recipes.md": recipe_pages.shipped_page(),
        "sources.md": recipe_pages.sources_page(),
        "results_tables.md": measured.results_page(),
        "gains_tables.md": measured.gains_page(),
        "defaults_tables.md": measured.defaults_page(),
        "language_tables.md": measured.language_page(),
        "costs_tables.md": measured.costs_page(),
        "modality_tables.md": modality_tables.overview(),
        "reported_tables.md": reported_pages.reported_page(),
        **api_pages.pages(),
    }


def navigation() -> dict[str, list[Any]]:
    """Entries of the generated sections in the navigation, by the title of the section."""
    return {
        "Methods": method_pages.navigation(catalogue.cards()),
        "API": api_pages.navigation(),
    }


def link_methods(text: str) -> str:
    """Turn names of methods in backticks, outside of code blocks, into links to their pages."""
    paths = {card["name"]: method_pages.path(card) for card in reversed(catalogue.cards())}
    for name in OPTIONS:
        paths.pop(name, None)
    parts = re.split(r"(^```.*?^```$)", text, flags=re.DOTALL | re.MULTILINE)

    def link(match: re.Match[str]) -> str:
        name = match.group(1)
        return f"[{name}]({paths[name]})" if name in paths else match.group(0)

    # Every second part is a code block.
    parts[::2] = [re.sub(r"`(\w+)`", link, part) for part in parts[::2]]
    return "".join(parts)


def main(folder: Path) -> None:
    """Write every generated page below ``folder``."""
    for path, text in pages().items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
