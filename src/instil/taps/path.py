"""Paths of tapped modules."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import nn

from instil.taps.layout import require_layout

Taps = Mapping[str, str | list[str]]
"""Role -> path of a module, or a list of paths for a tuple."""

Side = Literal["out", "in", "weight"]

PATH = re.compile(r"([^\[\]:@]*)(?:(\[\*\])?(:in)?(?:@(\w+))?|(:weight))")
WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module")
"""Names that DistributedDataParallel, ``torch.compile`` and FSDP insert into a module path."""

MOST_MODULES = 12
"""Number of modules that an error about missing taps lists."""


@dataclass(frozen=True)
class Tap:
    """Part of a module that is recorded.

    Attributes:
        index: position in the list of all taps of the model.
        role: role of the recorded value.
        is_part: the value is one element of the role's tuple, not the role itself.
        path: path of the module, without wrappers.
        side: output, first input, or weight and bias of the module.
        every_call: record all calls of the module, not only the last one.
        layout: layout of the value as a feature map; empty: as it is.
    """

    index: int
    role: str
    is_part: bool
    path: str
    side: Side
    every_call: bool
    layout: str = ""


def parse_taps(taps: Taps) -> list[Tap]:
    """Parse the paths of all roles.

    Args:
        taps: role -> path or list of paths.

    Raises:
        ValueError: for a text that is not a path.
    """
    parsed: list[Tap] = []
    for role, value in taps.items():
        is_part = not isinstance(value, str)
        for text in [value] if isinstance(value, str) else value:
            match = PATH.fullmatch(text) if isinstance(text, str) else None
            if match is None:
                raise ValueError(
                    f"taps.{role}: {text!r} is not a path. Write path, path[*] (all calls), "
                    "path:in (its input), path[*]:in, path:weight (its weight and bias) or "
                    "path@sequence (a layout)"
                )
            path, star, is_input, layout, is_weight = match.groups()
            if layout:
                require_layout(role, layout)
            side: Side = "in" if is_input else "out"
            if is_weight:
                side = "weight"
            path = without_wrappers(path)
            tap = Tap(len(parsed), role, is_part, path, side, bool(star), layout or "")
            parsed.append(tap)
    return parsed


def without_wrappers(name: str) -> str:
    """Name of a module or parameter without the parts that wrappers add."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def modules_by_path(model: nn.Module) -> dict[str, nn.Module]:
    """Modules of a model by their path without wrappers; the path of the model itself is empty."""
    return {without_wrappers(name): module for name, module in model.named_modules()}


def describe_modules(model: nn.Module) -> str:
    """Sentence that lists the modules of a model, the outer ones first."""
    names = sorted((name for name, _ in model.named_modules() if name), key=_depth)
    if not names:
        return "It has no modules inside"
    end = " ..." if len(names) > MOST_MODULES else ""
    return f"Its modules: {', '.join(names[:MOST_MODULES])}{end}"


def _depth(name: str) -> int:
    return name.count(".")
