"""Pages of the methods: the overview, the lists by property, and one page per method."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from itertools import groupby
from typing import Any

import measured
from formatting import cell, plain, table, value

from instil import catalogue
from instil.cli.methods_table import example, weight_text
from instil.search.space import method_space

Method = dict[str, Any]
SOURCES = ("labels", "logits", "features", "relations")
SECTION = re.compile(r"^(Args|Returns|Raises|Example|Examples|Note|Shape):", re.MULTILINE)


def path(card: Method) -> str:
    """Path of a method's page below ``docs``."""
    prefix = "" if card["kind"] == "objective" else f"{card['kind']}_"
    return f"methods/{prefix}{card['name']}.md"


def navigation(cards: list[Method]) -> list[Any]:
    """Navigation of the methods, one section per kind and source."""
    entries: list[Any] = [
        {"All methods": "methods.md"},
        {"Methods by property": "methods_by_property.md"},
    ]
    for title, group in _grouped(cards):
        entries.append({title: [{card["name"]: path(card)} for card in group]})
    return entries


def overview(cards: list[Method]) -> str:
    """Tables of all methods with links to their pages."""
    lines = [
        "# Methods",
        "",
        "All methods of the catalogue. `instil methods NAME` prints the same information.",
        "The loss of a method marked \\* couples the samples of a batch: the loss of one sample",
        "depends on the others. See also [how to choose a method](choose.md) and the lists",
        "[by property](methods_by_property.md).",
        "",
    ]
    for title, group in _grouped(cards):
        rows = [(_link(card), cell(_summary(card)), _published(card)) for card in group]
        lines += [f"## {title}", "", *table(("name", "idea", "published"), rows)]
    return "\n".join(lines)


def by_property(cards: list[Method]) -> str:
    """Names of the methods by task, by the outputs that they read, and by other properties."""
    objectives = [card for card in cards if card["kind"] == "objective"]
    schemes = [card for card in cards if card["kind"] == "scheme"]
    lines = [
        "# Methods by property",
        "",
        "These lists come from the cards of the methods. [Choose a method](choose.md) gives "
        "advice;",
        "the [results](results.md) have measured numbers. \\* marks an objective that couples the",
        "samples of a batch.",
        "",
        *_by_task(objectives),
        "## Objectives by model outputs",
        "",
        "*or* separates outputs that can replace each other.",
        "",
        *_lists("model outputs", objectives, _roles),
        "## Objectives by grid of the features",
        "",
        "`tokens` are (N, L, C), `1d` sequences (N, C, 1, T), `2d` images (N, C, H, W), `3d`",
        "videos and volumes (N, C, T, H, W). A test runs every objective on every grid.",
        "",
        *_lists("grid", objectives, lambda card: card["grids"]),
        "## Objectives by kind of label",
        "",
        *_lists("kind of label", objectives, lambda card: card["labels"]),
        "## Methods by algorithm",
        "",
        "The algorithms are those of the survey by Mansourian et al. (TMLR 2025).",
        "",
        *_lists("algorithm", cards, lambda card: card["algorithms"]),
        "## Schemes by kind",
        "",
        *_lists("kind", schemes, lambda card: [card["source"]]),
        "## Other properties",
        "",
        *_other_properties(objectives),
    ]
    return "\n".join(lines)


def _by_task(objectives: list[Method]) -> list[str]:
    """For every task, a table of its objectives with the situation in which to use each."""
    lines = ["## Objectives by task", ""]
    for task in sorted({task for card in objectives for task in card["tasks"]}):
        group = [card for card in objectives if task in card["tasks"]]
        group.sort(key=lambda card: (SOURCES.index(card["source"]), card["name"]))
        rows = [(_link(card), card["source"], cell(_first_sentence(card["use"]))) for card in group]
        header = ("objective", "knowledge", "when to use")
        lines += [f"### {task.replace('_', ' ').capitalize()}", "", *table(header, rows)]
    return lines


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=[.:;]) ", text, maxsplit=1)[0].rstrip(":;")


def _other_properties(objectives: list[Method]) -> list[str]:
    without_teacher = [
        card for card in objectives if card["source"] != "labels" and not card["needs"]["teacher"]
    ]
    coupled = [card for card in objectives if card["couples"]]
    rows = [
        ("reads no teacher outputs; acts as a regulariser", _links(without_teacher)),
        ("couples the samples of a batch", _links(coupled)),
    ]
    return table(("property", "methods"), rows)


def _lists(
    header: str, cards: list[Method], properties: Callable[[Method], Iterable[str]]
) -> list[str]:
    """A table with one row per property and links to the methods that have it."""
    by_property: dict[str, list[Method]] = {}
    for card in cards:
        for name in properties(card):
            by_property.setdefault(name, []).append(card)
    rows = [(cell(name), _links(group)) for name, group in sorted(by_property.items())]
    return table((header, "methods"), rows)


def _roles(card: Method) -> list[str]:
    student = ", ".join(card["needs"].get("student", [])) or "none"
    teacher = ", ".join(card["needs"].get("teacher", [])) or "none"
    return [f"student: {student}; teacher: {teacher}"]


def _links(cards: list[Method]) -> str:
    return ", ".join(_link(card) for card in cards)


def _link(card: Method) -> str:
    mark = " \\*" if card["couples"] else ""
    return f"[{card['name']}]({path(card)}){mark}"


def page(card: Method) -> str:
    """The page of one method."""
    title = f"[{card['title']}]({card['paper']})" if card["paper"] else card["title"]
    published = f", {_published(card)}" if _published(card) else ""
    lines = [f"# {card['name']}", "", _summary(card), "", f"*{title}{published}.*", ""]
    if card["equation"]:
        lines += ["$$", card["equation"], "$$", ""]
    lines += [_description(card), ""]
    paragraphs = {
        "When to use": card["use"],
        "Pitfalls": card["pitfalls"],
        "Differences from the paper": card["deviations"],
        "Cost": measured.cost_of(card["name"]) if card["kind"] == "objective" else "",
    }
    for heading, text in paragraphs.items():
        if text:
            lines += [f"**{heading}.** {plain(text)}", ""]
    rows = [(name, cell(text)) for name, text in _facts(card).items() if text]
    lines += table(("property", "value"), rows) if rows else []
    lines += ["## Usage", "", *_usage(card), ""]
    lines += _options(card)
    return "\n".join([*lines, *_api(card)])


def _facts(card: Method) -> dict[str, str]:
    is_objective = card["kind"] == "objective"
    return {
        "knowledge": card["source"] if is_objective else "",
        "kind": card["source"] if card["kind"] in ("scheme", "teacher") else "",
        "algorithms": ", ".join(card["algorithms"]),
        "tasks": ", ".join(card["tasks"]) if is_objective else "",
        "labels": ", ".join(card["labels"]) if card["kind"] in ("objective", "task") else "",
        "feature grids": ", ".join(card["grids"]),
        "student outputs": ", ".join(card["needs"].get("student", [])),
        "teacher outputs": ", ".join(card["needs"].get("teacher", [])),
        "published weight": weight_text(card),
        "couples the samples of a batch": "yes" if card["couples"] else "",
    }


def _usage(card: Method) -> list[str]:
    """A recipe line, a command where one applies, and the import."""
    lines = []
    if card["kind"] not in ("teacher", "task"):
        lines += ["```yaml", example(card), "```", ""]
    learns_from_teacher = card["kind"] == "objective" and card["source"] != "labels"
    if learns_from_teacher and "classification" in card["tasks"]:
        lines += ["```bash", f"instil run digits 'objectives.{card['name']}={{}}'", "```", ""]
    module, _, name = card["defined"].rpartition(".")
    return [*lines, "```python", f"from {module} import {name}", "```"]


def _options(card: Method) -> list[str]:
    if not card["options"]:
        return []
    ranges = _search_ranges(card)
    rows = []
    for option in card["options"]:
        default = "" if option["default"] is None else f"`{value(option['default'])}`"
        name, kind = f"`{option['name']}`", cell(option["type"])
        cells = [name, kind, default, cell(option["description"])]
        rows.append([*cells, ranges.get(option["name"], "")] if ranges else cells)
    header = ["option", "type", "default", "description", *["search"] * bool(ranges)]
    note = (
        "`instil search --over options` varies the options with an entry in the column search. "
        "The [weight](../search.md#what-is-compared) of an objective varies, too.\n"
    )
    return ["## Options", "", *table(header, rows), note * bool(ranges)]


def _search_ranges(card: Method) -> dict[str, str]:
    """Values of each option that a search varies."""
    if card["kind"] not in ("objective", "scheme"):
        return {}
    ranges = {}
    for dimension in method_space(card["kind"], card["name"], "", {}):
        text = ", ".join(map(value, dimension.choices))
        if not dimension.choices:
            scale = ", log" if dimension.is_log else ""
            text = f"{dimension.low:.3g} to {dimension.high:.3g}{scale}"
        ranges[dimension.path.removeprefix(".")] = cell(text)
    return ranges


def _api(card: Method) -> list[str]:
    """Directives that mkdocstrings replaces by the documentation of the functions and the class."""
    lines = ["## API", ""]
    for function in card["functions"]:
        name = f"{_module(card, function['name'])}.{function['name']}"
        # The function of an alias is documented once, on the page of the method that it extends.
        is_own = name.startswith(f"{card['defined'].rpartition('.')[0]}.")
        lines += [f"::: {name}" if is_own else f"Function: [`{name}`][{name}].", ""]
    options = [
        "    options:",
        "      members: false",
        "      show_docstring_description: false",
    ]
    return [*lines, f"::: {card['defined']}", *options, ""]


def _module(card: Method, function: str) -> str:
    """Module that defines a function of a method; an alias shows the function of its base class."""
    bases = catalogue.find(card["kind"], card["name"]).__mro__
    modules = [base.__module__ for base in bases]
    return next(name for name in modules if function in vars(sys.modules[name]))


def _description(card: Method) -> str:
    """Docstring of the class without its sections and its options, which have a table."""
    text = SECTION.split(card["text"])[0]
    names = "|".join(re.escape(option["name"]) for option in card["options"]) or "-"
    pattern = rf"^``(?:{names})``:.*\n?(?:(?!``|\n).+\n?)*"
    return plain(re.sub(pattern, "", text, flags=re.MULTILINE)).strip()


def _summary(card: Method) -> str:
    return plain(" ".join(card["idea"].split("\n\n")[0].split()))


def _published(card: Method) -> str:
    return f"{card['venue']} {card['year'] or ''}".strip()


def _grouped(cards: list[Method]) -> Iterable[tuple[str, list[Method]]]:
    """Methods by kind, and objectives by source in the order of the survey."""
    for title, group in groupby(sorted(cards, key=_rank), key=_title):
        yield title, list(group)


def _title(card: Method) -> str:
    if card["kind"] == "objective":
        return f"Objectives on {card['source']}"
    return f"{card['kind'].capitalize()}s"


def _rank(card: Method) -> tuple[int, int]:
    source = SOURCES.index(card["source"]) if card["kind"] == "objective" else 0
    return catalogue.kinds().index(card["kind"]), source
