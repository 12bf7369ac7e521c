"""Write what the package can say about itself: ``methods.md``, the tables of ``recipe.md``, the methods in the README,
the method shown in CONTRIBUTING.

python docs/generate.py
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from inspect import cleandoc, isclass
from itertools import groupby
from pathlib import Path
from typing import Any, get_args, get_origin

from annotated_types import Ge, Gt, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from instil import catalogue
from instil.cli.methods_table import example
from instil.recipe import STAGE, sections
from instil.recipe.options import SCHEDULED, type_text

HERE = Path(__file__).parent
MARK = "<!-- what follows is written by docs/generate.py -->\n"
SECTIONS = {
    "": sections.Recipe,
    "task": sections.Task,
    "data": sections.Data,
    "data.augment": sections.Augment,
    "teacher, student": sections.Model,
    "teacher.input, student.input": sections.Input,
    "scheme": sections.Method,
    "objectives.<name>": sections.Goal,
    "train, teacher_train": sections.Train,
    "train.optimizer": sections.Optimizer,
}


def methods_page() -> str:
    """The catalogue as Markdown."""
    lines = ["# Methods", "", "Written by `docs/generate.py` from the catalogue; `instil methods NAME` says the same and the functions' texts.", ""]
    cards = catalogue.cards()
    for kind, group in groupby(cards, key=lambda card: card["kind"]):
        lines += [f"## {kind.capitalize()}s", ""]
        for card in sorted(group, key=lambda card: card["source"]):
            lines += [*_method(card), ""]
    return "\n".join(lines)


def _method(card: dict[str, Any]) -> Iterator[str]:
    yield f"### {card['name']}"
    published = f"{card['venue']} {card['year'] or ''}".strip()
    title = f"[{card['title']}]({card['paper']})" if card["paper"] else card["title"]
    yield f"{title}{f', {published}' if published else ''}. {_plain(card['idea'])}"
    yield ""
    yield _plain(card["text"])
    facts = {
        "source": card["source"],
        "algorithms": ", ".join(card["algorithms"]),
        "labels": ", ".join(card["labels"]) if card["kind"] in ("objective", "task") else "",
        "reads": "; ".join(f"{' and '.join(roles)} of the {side}" for side, roles in card["needs"].items() if roles),
        "couples its batch": "yes" if card["couples"] else "",
        "functions": ", ".join(f"`{one['name']}`" for one in card["functions"]),
        "differs from paper or code": _plain(card["deviations"]),
    }
    yield ""
    yield from (f"- {name}: {text}" for name, text in facts.items() if text)
    yield f"- in a recipe: `{example(card)}`" if card["kind"] != "teacher" else f"- {example(card)}"
    if card["options"]:
        yield ""
        yield "| option | type | default | |"
        yield "|---|---|---|---|"
        for option in card["options"]:
            shown = "" if option["default"] is None else f"`{_json(option['default'])}`"
            yield f"| `{option['name']}` | {_cell(option['type'])} | {shown} | {_cell(_plain(option['description']))} |"


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
        lines += [f"| `{name}` | {_cell(_type(field))} | {_default(name, field)} |" for name, field in section.model_fields.items()]
        lines.append("")
    lines += ["### `stages[]`", "", f"The keys of a stage: {', '.join(f'`{key}`' for key in STAGE)}.", ""]
    return "\n".join(lines)


def _type(field: FieldInfo) -> str:
    signs = {Ge: (">=", "ge"), Gt: (">", "gt"), Lt: ("<", "lt")}
    bounds = [f"{sign} {getattr(m, key):g}" for m in field.metadata for kind, (sign, key) in signs.items() if isinstance(m, kind)]
    if SCHEDULED in field.metadata:
        return "float | schedule"
    if get_origin(field.annotation) is dict:
        inner = get_args(field.annotation)[1]
        return f"name: {_section(inner)}" if "section" in _section(inner) else type_text(field.annotation)
    names = " | ".join(_section(part) for part in (get_args(field.annotation) or [field.annotation]))
    return " ".join([names if "section" in names else type_text(field.annotation), *bounds])


def _section(annotation: Any) -> str:
    if isclass(annotation) and issubclass(annotation, BaseModel):
        return f"section {annotation.__name__}"
    inner = get_args(annotation)
    return f"list of {_section(inner[0])}" if inner and "section" in _section(inner[0]) else type_text(annotation)


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
    return "the file's name" if name == "name" and field.default == "recipe" else f"`{_json(field.default)}`"


def _json(value: Any) -> str:
    return json.dumps(value).strip('"')


def _plain(text: str) -> str:
    return text.replace("``", "`")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _place(card: dict[str, Any]) -> tuple[int, int]:
    """Where a method stands: its kind, then its source in the survey's order."""
    sources = ("labels", "logits", "features", "relations", "offline", "online", "self", "")
    return catalogue.kinds().index(card["kind"]), sources.index(card["source"])


def readme() -> str:
    """README.md with the names of all methods between its marks."""
    before, _, rest = (HERE.parent / "README.md").read_text(encoding="utf-8").partition("<!-- methods -->\n")
    lines = ["| kind | names |", "|---|---|"]
    for (kind, source), group in groupby(sorted(catalogue.cards(), key=_place), key=lambda card: (card["kind"], card["source"])):
        names = ", ".join(f"`{card['name']}`" for card in group)
        label = f"objectives on {source}" if kind == "objective" else f"{kind}s{f', {source}' if source else ''}"
        lines.append(f"| {label} | {names} |")
    return before + "<!-- methods -->\n" + "\n".join(lines) + "\n<!-- end of methods -->\n" + rest.partition("<!-- end of methods -->\n")[2]


def contributing() -> str:
    """CONTRIBUTING.md with the method that it shows as it is."""
    method = (HERE.parent / "src/instil/objectives/logits/logit_mse.py").read_text(encoding="utf-8")
    before, _, rest = (HERE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("```python\n")
    return before + "```python\n" + method + "```\n" + rest.partition("```\n")[2]


PAGES = {"../CONTRIBUTING.md": contributing, "methods.md": methods_page, "recipe.md": recipe_page, "../README.md": readme}


def main() -> None:
    for name, page in PAGES.items():
        (HERE / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
