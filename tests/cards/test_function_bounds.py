"""Bounds of options in loss functions, which are those of the constructors."""

from __future__ import annotations

import importlib
import inspect
import math
from typing import Any

import pytest
import torch

from instil import catalogue, kd_loss
from instil.cards import Positive, Schedule, check_bounds
from instil.cards.bounds import _bounds

UNBOUNDED = {
    "bingo_loss": "bag",
    "diffkd_loss": "reduction",
    "fgd_loss": "foreground, background",
    "rank_distil_loss": "rankings",
    "vid_loss": "variance",
}
"""Parameters with the name of an option but another meaning: tensors, and ``reduction``."""


@check_bounds
def scaled(value: float, *, factor: Positive = 1.0) -> float:
    """Product, as an example of a function."""
    return value * factor


def test_a_number_outside_of_its_bounds_is_named() -> None:
    logits = torch.zeros(2, 3)
    for temperature in (-1, 0.0, math.nan):
        with pytest.raises(ValueError, match=r"^kd_loss\.temperature: Expected a number above 0"):
            kd_loss(logits, logits, temperature)
        with pytest.raises(ValueError, match=r"^kd_loss\.temperature: Expected a number above 0"):
            kd_loss(logits, logits, temperature=temperature)
    for value in ("2", Schedule(4.0, 1.0)):
        with pytest.raises(ValueError, match=r"^kd_loss\.temperature: Expected a number above 0"):
            kd_loss(logits, logits, value)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^scaled\.factor: Expected a number above 0, got -2"):
        scaled(1.0, factor=-2)


def test_values_within_the_bounds_and_tensors_pass() -> None:
    assert scaled(-1.0) == -1.0
    assert scaled(3.0, factor=0.5) == 1.5
    logits = torch.zeros(2, 3)
    assert kd_loss(logits, logits, torch.tensor(2.0)) == 0  # type: ignore[arg-type]


def test_a_compiled_function_has_one_graph() -> None:
    logits = torch.randn(2, 3)
    compiled = torch.compile(kd_loss, backend="eager", fullgraph=True)
    assert compiled(logits, -logits, temperature=3.0) == kd_loss(logits, -logits, 3.0)


@pytest.mark.parametrize("module", sorted(set(catalogue.losses().values())))
def test_functions_have_the_bounds_of_the_class(module: str) -> None:
    code = importlib.import_module(module)
    bounds: dict[str, Any] = {}
    for value in vars(code).values():
        if isinstance(value, type) and value.__module__ == module:
            bounds |= _bounds(inspect.unwrap(value.__init__))
    for name in (name for name, file in catalogue.losses().items() if file == module):
        function = getattr(code, name)
        options = bounds.keys() & inspect.signature(function).parameters.keys()
        for option in options - set(UNBOUNDED.get(name, "").split(", ")):
            if bounds[option]:
                with pytest.raises(ValueError, match=f"{name}.{option}: Expected a number"):
                    function(**{option: math.nan})
