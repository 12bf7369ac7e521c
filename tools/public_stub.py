"""Writes ``src/instil/__init__.pyi``, the list of public names: ``python tools/public_stub.py``.

The stub gives type checkers and editors the type, completion and definition of every public name,
and tells the package from where to load it.
"""

from __future__ import annotations

from pathlib import Path

from instil import catalogue

STUB = Path(__file__).parents[1] / "src" / "instil" / "__init__.pyi"

NAMES = {
    "cards": ("Card", "Schedule"),
    "core": ("Net", "Objective", "Objectives", "Scheme", "Teacher", "Update"),
    "deployment.predict": ("load",),
    "distillation": ("distil",),
    "engine": ("Optimization",),
    "generation.options": ("Sampling",),
    "items": ("Batch", "Outputs"),
    "training.fit": ("Training", "fit"),
}
KINDS = ("scheme", "objective", "teacher", "task", "weighting", "balance")
"""Order of the kinds: if methods of two kinds have one class name, the first is public."""


def public_names() -> dict[str, str]:
    """Return the module, below ``instil``, of each public name."""
    names = {name: module for module, group in NAMES.items() for name in group}
    for kind in KINDS:
        for method in catalogue.files(kind):
            cls = catalogue.find(kind, method)
            names.setdefault(cls.__name__, cls.__module__.removeprefix("instil."))
    for loss, module in catalogue.losses().items():
        names.setdefault(loss, module.removeprefix("instil."))
    return names


def stub_text() -> str:
    """Return the text of the stub."""
    names = public_names()
    lines = [f"from .{module} import {name} as {name}" for name, module in sorted(names.items())]
    public = [f'    "{name}",' for name in sorted(names)]
    return "\n".join(
        [
            "# Written by tools/public_stub.py.",
            *lines,
            "",
            "__version__: str",
            "__all__ = [",
            *public,
            "]",
            "",
        ]
    )


if __name__ == "__main__":
    STUB.write_text(stub_text())
