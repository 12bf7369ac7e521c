"""Examples in docstrings run and print the documented output."""

from __future__ import annotations

import doctest
import importlib
import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SOURCE = Path(__file__).parents[1] / "src"
MODULES = sorted(
    ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
    for path in SOURCE.rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)


class WithDecorated(doctest.DocTestFinder):
    """Finder of examples, also those of functions with a decorator of another module."""

    def _from_module(self, module: ModuleType | None, value: Any) -> bool:
        return super()._from_module(module, inspect.unwrap(value))


def test_there_are_examples() -> None:
    assert "instil.objectives.logits.alpha_beta" in MODULES


@pytest.mark.parametrize("name", MODULES)
def test_examples_print_what_they_show(name: str) -> None:
    runner = doctest.DocTestRunner()
    for examples in WithDecorated().find(importlib.import_module(name)):
        runner.run(examples)
    assert runner.tries
    assert not runner.failures
