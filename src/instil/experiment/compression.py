"""A model after the changes that a recipe makes to it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator

from torch import nn

from instil import students
from instil.core import Batch, Outputs, side_effect_free
from instil.data.samples import Samples
from instil.recipe import RecipeError
from instil.recipe.options import check
from instil.recipe.sections import ModelConfig

OBSERVED, AT_ONCE = 16, 4
"""Samples by which layers or parts are chosen that a student keeps, and how many of them are looked at at once."""


def compress(model: nn.Module, spec: ModelConfig, observe: students.Observe) -> nn.Module:
    """The model after the changes of a recipe, each with checked options."""
    for name, options in spec.changes.items():
        try:
            change = students.find(name)
            seen = {"observe": observe} if "observe" in inspect.signature(change).parameters else {}
            model = change(model, **check(change, options, schedules=False), **seen)
        except ValueError as error:
            begins = "." if isinstance(error, RecipeError) else ": "
            raise ValueError(
                f"changes.{name}{begins}{'; '.join(str(error).splitlines())}"
            ) from error
    return model


def make_observer(
    call: Callable[[nn.Module, Batch], Outputs], samples: Samples
) -> Callable[[nn.Module], Iterator[Outputs]]:
    """What a model says of the first samples, asked by ``call``."""

    def observe(model: nn.Module) -> Iterator[Outputs]:
        rows = range(min(OBSERVED, len(samples)))
        with side_effect_free(model):
            for begin in range(0, len(rows), AT_ONCE):
                yield call(model, samples.__getitems__(rows[begin : begin + AT_ONCE]))

    return observe
