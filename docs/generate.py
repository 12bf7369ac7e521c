"""Pages of the documentation that are generated from the package and from measured numbers.

``mkdocs build`` calls this module through ``docs/hooks.py``; no generated page is committed.
To read the pages as Markdown: python docs/generate.py FOLDER
"""

from __future__ import annotations

import json
import re
import sys
from inspect import cleandoc, isclass
from itertools import groupby
from pathlib import Path
from typing import Any, get_args, get_origin

import api_pages
import measured
import method_pages
import recipe_pages
from annotated_types import Ge, Gt, Lt
from measured import MARK
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from instil import catalogue
from instil.catalogue.signatures import type_text
from instil.cli.methods_table import example
from instil.experiment.source_docs import describe_sources
from instil.recipe import STAGE_KEYS, sections
from instil.recipe.schedules import SCHEDULED

HERE = Path(__file__).parent
SECTIONS = {
    "": sections.Recipe,
    "task": sections.TaskConfig,
    "data": sections.DataConfig,
    "data.augment": sections.AugmentConfig,
    "data.images": sections.SurrogateConfig,
    "store": sections.StoreConfig,
    "teacher, student": sections.ModelConfig,
    "teacher": sections.TeacherConfig,
    "teacher.input, student.input": sections.InputConfig,
    "scheme": sections.SchemeConfig,
    "objectives.<name>": sections.ObjectiveConfig,
    "train, teacher_train": sections.TrainConfig,
    "train.optimizer": sections.OptimizerConfig,
}


STAR = " \\*"  # after the name of a method that couples its batch


def methods_page() -> str:
    """The catalogue as tables that lead to a page a method."""
    lines = [
        "# Methods",
        "",
        "Written by `docs/generate.py` from the catalogue; `instil methods NAME` says the same. A method that couples its",
    ]
    lines += [
        "batch is marked \\*: the loss of one item depends on the others. [How to choose](choose.md) comes first.",
        "",
    ]
    for kind, group in groupby(
        sorted(catalogue.cards(), key=_place), key=lambda card: card["kind"]
    ):
        lines += [f"## {_plural(kind).capitalize()}", ""]
        for source, cards in groupby(group, key=lambda card: card["source"]):
            lines += [f"### {source.capitalize()}", ""] if kind == "objective" else []
            lines += ["| name | idea | published |", "|---|---|---|"]
            lines += [
                f"| [{c['name']}]({_path(c)}){STAR * c['couples']} | {_cell(_idea(c))} | {_published(c)} |"
                for c in cards
            ]
            lines.append("")
    return "\n".join(lines)


def method_page(card: dict[str, Any]) -> str:
    """All that is known of one method."""
    title = f"[{card['title']}]({card['paper']})" if card["paper"] else card["title"]
    lines = [
        f"# {card['name']}",
        "",
        f"{_idea(card)} {title}{f', {_published(card)}' if _published(card) else ''}.",
        "",
        _text(card),
        "",
    ]
    lines += ["$$", card["equation"], "$$", ""] if card["equation"] else []
    facts = {
        "When to take it": card["use"],
        "Mind": card["pitfalls"],
        "Differs from paper or code": card["deviations"],
        "Cost": measured.cost_of(card["name"]),
    }
    for heading, text in facts.items():
        lines += [f"**{heading}.** {_plain(text)}", ""] if text else []
    lines += [f"- {name}: {text}" for name, text in _facts(card).items() if text]
    lines += ["", "## Use", "", *_uses(card), ""]
    if card["options"]:
        lines += ["## Options", "", "| option | type | default | |", "|---|---|---|---|"]
        for option in card["options"]:
            shown = "" if option["default"] is None else f"`{_json(option['default'])}`"
            lines.append(
                f"| `{option['name']}` | {_cell(option['type'])} | {shown} | {_cell(_plain(option['description']))} |"
            )
        lines.append("")
    for function in card["functions"]:
        signature = f"{function['name']}{function['signature']}"
        lines += [
            f"## `instil.{function['name']}`",
            "",
            "```python",
            signature,
            "```",
            "",
            _plain(function["text"]),
            "",
        ]
    return "\n".join(lines)


def _facts(card: dict[str, Any]) -> dict[str, str]:
    return {
        "learns from": card["source"] if card["kind"] == "objective" else "",
        "algorithms": ", ".join(card["algorithms"]),
        "tasks": ", ".join(card["tasks"]) if card["kind"] == "objective" else "",
        "labels": ", ".join(card["labels"]) if card["kind"] in ("objective", "task") else "",
        "reads": "; ".join(
            f"{' and '.join(roles)} of the {side}" for side, roles in card["needs"].items() if roles
        ),
        "couples its batch": "yes" if card["couples"] else "",
    }


def _uses(card: dict[str, Any]) -> list[str]:
    """On the command line, in a recipe and in Python."""
    module, _, name = card["defined"].rpartition(".")
    lines = ["```yaml", example(card), "```"] if card["kind"] not in ("teacher", "task") else []
    if (
        card["kind"] == "objective"
        and "classification" in card["tasks"]
        and card["source"] != "labels"
    ):
        lines += ["", "```bash", f"instil run digits 'objectives.{card['name']}={{}}'", "```"]
    return [*lines, "", "```python", f"from {module} import {name}", "```"]


def _text(card: dict[str, Any]) -> str:
    """The class's docstring without the options, which have a table."""
    named = "|".join(re.escape(option["name"]) for option in card["options"]) or "-"
    return _plain(
        re.sub(rf"^``(?:{named})``:.*\n?(?:(?!``|\n).+\n?)*", "", card["text"], flags=re.MULTILINE)
    ).strip()


def _path(card: dict[str, Any]) -> str:
    return (
        f"methods/{card['name']}.md"
        if card["kind"] == "objective"
        else f"methods/{card['kind']}_{card['name']}.md"
    )


def _plural(kind: str) -> str:
    return "balances" if kind == "balance" else f"{kind}s"


def _idea(card: dict[str, Any]) -> str:
    return _plain(" ".join(card["idea"].split("\n\n")[0].split()))


def _published(card: dict[str, Any]) -> str:
    return f"{card['venue']} {card['year'] or ''}".strip()


def recipe_page() -> str:
    """What stands before the mark in ``recipe.md``, then a table for each section."""
    kept = (HERE / "recipe.md").read_text(encoding="utf-8").partition(MARK)[0]
    lines = [kept + MARK]
    for path, section in SECTIONS.items():
        lines += [
            f"### {f'`{path}`' if path else 'The recipe'}",
            "",
            _plain(cleandoc(section.__doc__ or "")),
            "",
            "| key | type | default |",
            "|---|---|---|",
        ]
        lines += [
            f"| `{name}` | {_cell(_type(field))} | {_default(name, field)} |"
            for name, field in section.model_fields.items()
            if name in section.__annotations__
        ]
        lines.append("")
    lines += [
        "### `stages[]`",
        "",
        f"The keys of a stage: {', '.join(f'`{key}`' for key in STAGE_KEYS)}.",
        "",
    ]
    return "\n".join(lines)


def data_page() -> str:
    """What stands before the mark in ``data.md``, then the options of each source."""
    kept = (HERE / "data.md").read_text(encoding="utf-8").partition(MARK)[0]
    lines = [kept + MARK]
    for source in describe_sources():
        lines += [f"### `{source['name']}`", "", _plain(source["summary"]), ""]
        lines += [_plain(source["text"]), ""] if source["text"] else []
        if source["options"]:
            lines += ["| option | type | default | meaning |", "|---|---|---|---|"]
        for option in source["options"]:
            is_required = option["default"] is None and "null" not in option["type"]
            default = "required" if is_required else f"`{_json(option['default'])}`"
            meaning = _cell(_plain(option["description"]))
            kind = _cell(option["type"])
            lines.append(f"| `{option['name']}` | {kind} | {default} | {meaning} |")
        lines.append("")
    return "\n".join(lines)


def _type(field: FieldInfo) -> str:
    signs = {Ge: (">=", "ge"), Gt: (">", "gt"), Lt: ("<", "lt")}
    bounds = [
        f"{sign} {getattr(m, key):g}"
        for m in field.metadata
        for kind, (sign, key) in signs.items()
        if isinstance(m, kind)
    ]
    if SCHEDULED in field.metadata:
        return "float | schedule"
    if get_origin(field.annotation) is dict:
        inner = get_args(field.annotation)[1]
        return (
            f"name: {_section(inner)}"
            if "section" in _section(inner)
            else type_text(field.annotation)
        )
    names = " | ".join(
        _section(part) for part in (get_args(field.annotation) or [field.annotation])
    )
    return " ".join([names if "section" in names else type_text(field.annotation), *bounds])


def _section(annotation: Any) -> str:
    if isclass(annotation) and issubclass(annotation, BaseModel):
        return f"section {annotation.__name__}"
    inner = get_args(annotation)
    return (
        f"list of {_section(inner[0])}"
        if inner and "section" in _section(inner[0])
        else type_text(annotation)
    )


def _default(name: str, field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "the objective's name" if name == "type" else "required"
    if isinstance(field.default, BaseModel):
        return "its defaults"
    if name in ("epochs", "steps", "teacher_train", "baselines", "export"):
        return {
            "epochs": "20, unless `steps` is given",
            "steps": "none",
            "teacher_train": "as `train`",
            "baselines": "`alone, label_smoothing, pseudo_labels`; `alone` where images have several labels",
            "export": "true where ONNX is installed",
        }[name]
    return (
        "the file's name"
        if name == "name" and field.default == "recipe"
        else f"`{_json(field.default)}`"
    )


def _json(value: Any) -> str:
    return json.dumps(value).strip('"')


def _plain(text: str) -> str:
    return text.replace("``", "`")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _place(card: dict[str, Any]) -> tuple[int, int]:
    """Where a method stands: its kind, then its source in the survey's order."""
    sources = ("labels", "logits", "features", "relations", "offline", "online", "self", "")
    return catalogue.kinds().index(card["kind"]), sources.index(card["source"]) if card[
        "kind"
    ] == "objective" else 0


def readme() -> str:
    """README.md with the names of all methods between its marks."""
    before, _, rest = (
        (HERE.parent / "README.md").read_text(encoding="utf-8").partition("<!-- methods -->\n")
    )
    lines = ["| kind | names |", "|---|---|"]

    def cell(card: dict[str, Any]) -> tuple[str, str]:
        return card["kind"], card["source"] if card["kind"] == "objective" else ""

    for (kind, source), group in groupby(sorted(catalogue.cards(), key=_place), key=cell):
        names = ", ".join(f"`{card['name']}`" for card in group)
        label = f"objectives on {source}" if kind == "objective" else _plural(kind)
        lines.append(f"| {label} | {names} |")
    return (
        before
        + "<!-- methods -->\n"
        + "\n".join(lines)
        + "\n<!-- end of methods -->\n"
        + rest.partition("<!-- end of methods -->\n")[2]
    )


def contributing() -> str:
    """CONTRIBUTING.md with the method that it shows as it is."""
    method = (HERE.parent / "src/instil/objectives/logits/logit_mse.py").read_text(encoding="utf-8")
    before, _, rest = (
        (HERE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("```python\n")
    )
    return before + "```python\n" + method + "```\n" + rest.partition("```\n")[2]


PAGES = {
    "../CONTRIBUTING.md": contributing,
    "methods.md": methods_page,
    "recipe.md": recipe_page,
    "data.md": data_page,
    "results.md": measured.results_page,
    "gains.md": measured.gains_page,
    "defaults.md": measured.defaults_page,
    "language.md": measured.language_page,
    "costs.md": measured.costs_page,
    "../README.md": readme,
}


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
