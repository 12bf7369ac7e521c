"""The stack of like layers inside a model, and what passes through modules."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn


def stack(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """Path and layers: the longest list of modules of one class. Raises ValueError where there is none."""
    lists = [
        (path, part)
        for path, part in model.named_modules()
        if isinstance(part, nn.ModuleList) and len({type(layer) for layer in part}) == 1
    ]
    if not lists:
        raise ValueError(f"{type(model).__name__} has no list of layers of one kind")
    return max(lists, key=lambda found: len(found[1]))


def first_tensor(value: Any) -> Tensor:
    """Of what goes into a module or comes out of it, the first tensor."""
    return (
        value
        if isinstance(value, Tensor)
        else next(part for part in value if isinstance(part, Tensor))
    )


@contextlib.contextmanager
def watched(
    modules: Iterable[nn.Module], see: Callable[[int, Tensor, Tensor], None]
) -> Iterator[None]:
    """Calls ``see(number, input, output)`` for every call of a module, without gradients."""

    def hook(
        number: int, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> None:
        see(number, first_tensor((*args, *kwargs.values())), first_tensor(output))

    with contextlib.ExitStack() as hooks, torch.no_grad():
        for number, module in enumerate(modules):
            hooks.callback(
                module.register_forward_hook(
                    functools.partial(hook, number), with_kwargs=True
                ).remove
            )
        yield
