"""Inputs with too few dimensions are an error with the name of the tensor or the loss."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

import instil
from instil import functional, objectives

Call = tuple[tuple[Any, ...], dict[str, Any]]


def losses(package: ModuleType) -> Iterator[tuple[ModuleType, str, Callable[..., Any]]]:
    """Module, name and function of each loss function of a package."""
    for entry in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        module = importlib.import_module(entry.name)
        for name, function in list(vars(module).items()):
            is_own = inspect.isfunction(function) and function.__module__ == module.__name__
            if is_own and name.endswith("_loss"):
                yield module, name, function


def example(module: ModuleType, name: str, function: Callable[..., Any]) -> Call | None:
    """Arguments of the first call in the example of a function."""
    calls: list[Call] = []

    def record(*args: Any, **kwargs: Any) -> Any:
        calls.append((args, kwargs))
        return function(*args, **kwargs)

    parser, names = doctest.DocTestParser(), {**vars(module), name: record}
    test = parser.get_doctest(inspect.getdoc(function) or "", names, name, None, 0)
    doctest.DocTestRunner(verbose=False).run(test, out=lambda text: None)
    return calls[0] if calls else None


def flat(value: Any) -> Any:
    """A tensor, or each of a list of tensors, with one dimension."""
    if isinstance(value, Tensor):
        return value.reshape(-1) if value.ndim > 1 else value
    if type(value) in (tuple, list):
        return type(value)(flat(item) for item in value)
    return value


def test_flat_inputs_are_values_or_clear_errors() -> None:
    unclear, num_errors = [], 0
    for package in (functional, objectives):
        for module, name, function in losses(package):
            call = example(module, name, function)
            if call is None:
                continue
            args, kwargs = call
            try:
                function(*map(flat, args), **{key: flat(value) for key, value in kwargs.items()})
            except ValueError:
                num_errors += 1
            except Exception as error:
                unclear.append(f"{name}: {type(error).__name__}: {error}")
    # Inputs of any number of dimensions are right for losses of logits (..., C).
    assert num_errors > 100
    # Its logits and weights may be of several shapes, whose product decides.
    assert [line for line in unclear if not line.startswith("chunked_loss")] == []


@pytest.mark.parametrize(
    ("function", "what"),
    [
        (instil.simkd_loss, "student and teacher"),
        (instil.dist_loss, "student_logits"),
        (instil.cka_loss, "cka_loss"),
    ],
)
def test_the_message_names_the_dimensions(function: Callable[..., Any], what: str) -> None:
    values = torch.ones(4)
    message = rf"^{what}: Expected 2 or more dimensions, got the shape \(4,\)$"
    with pytest.raises(ValueError, match=message):
        function(values, values)
