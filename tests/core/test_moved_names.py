"""Names that moved from ``instil.core`` to other modules."""

from __future__ import annotations

import importlib

import pytest

from instil import core
from instil.cards.removed import MOVED


@pytest.mark.parametrize(
    ("name", "module"),
    [(name, module) for module, names in MOVED.items() for name in names.split()],
)
def test_an_import_of_a_moved_name_names_the_new_module(name: str, module: str) -> None:
    assert hasattr(importlib.import_module(module), name)
    with pytest.raises(ImportError, match=rf"instil\.core\.{name} has moved\. .* from {module}\."):
        exec(f"from instil.core import {name}")


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(core, "nothing_of_this_name")
    with pytest.raises(ImportError):
        exec("from instil.core import nothing_of_this_name")
