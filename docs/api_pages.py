"""Pages of the API reference: one per public package, filled by mkdocstrings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import instil
from instil import catalogue

ROOT = Path(instil.__file__).parent
INTERNAL = {"cli", "experiment", "plan", "report", "recipes"}
"""Folders without an API of their own: the command line, its jobs, its reports and YAML files."""


def pages() -> dict[str, str]:
    """Text of every page of the reference by its path below ``docs``."""
    texts = {"api/index.md": _index()}
    for package, modules in _packages().items():
        lines = [f"# instil.{package}", ""]
        for module in modules:
            lines += [f"::: {module}", "    options:", "      heading_level: 2", ""]
        texts[f"api/{package}.md"] = "\n".join(lines)
    return texts


def navigation() -> list[Any]:
    """Navigation of the reference."""
    entries: list[Any] = [{"Overview": "api/index.md"}]
    return entries + [{package: f"api/{package}.md"} for package in _packages()]


def _index() -> str:
    """Public names of ``instil`` except methods, and the packages."""
    lines = [
        "# API",
        "",
        "`instil` offers the names below, the class of every [method](../methods.md) and every",
        "`*_loss` function. The pages of the methods document the latter two.",
        "",
    ]
    for name in instil.__all__:
        item = getattr(instil, name)
        if item.__module__ in _method_modules():
            continue
        lines.append(f"- [`instil.{name}`][{_definition(name, item)}]")
    lines += ["", "## Packages", ""]
    lines += [f"- [`instil.{package}`]({package}.md)" for package in _packages()]
    lines.append("")
    return "\n".join(lines)


def _definition(name: str, item: Any) -> str:
    """Full name under which the reference documents a public name."""
    if item.__module__ == "builtins":
        # An alias of a type has the name of the type; Batch and Outputs are the only ones.
        return f"instil.items.batch.{name}"
    return f"{item.__module__}.{item.__qualname__}"


def _packages() -> dict[str, list[str]]:
    """Public packages with their modules, without the modules of methods, which have own pages."""
    methods = _method_modules()
    packages: dict[str, list[str]] = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        module = ".".join(("instil", *parts)).removesuffix(".__init__")
        is_private = parts[-1].startswith("_") and parts[-1] != "__init__"
        if is_private or parts[0] in INTERNAL or module in methods or module == "instil":
            continue
        if path.read_text(encoding="utf-8").strip():
            packages.setdefault(parts[0], []).append(module)
    return packages


def _method_modules() -> set[str]:
    """Modules of all methods."""
    modules: set[str] = set()
    for kind in catalogue.kinds():
        modules.update(catalogue.files(kind).values())
    return modules
