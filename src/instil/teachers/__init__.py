"""Who is asked: ``instil.teachers.Frozen`` and the others, loaded on first use."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    from instil.catalogue import named

    if found := named("teacher", name):
        return found
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
