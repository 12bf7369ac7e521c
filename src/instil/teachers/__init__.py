"""Teachers, such as ``instil.teachers.Frozen``, loaded on first use."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    from instil.catalogue import named

    if teacher := named("teacher", name):
        return teacher
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
