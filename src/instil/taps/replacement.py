"""Replacement of activations inside a model."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from instil.cards.closest import suggestion
from instil.taps.path import modules_by_path


@contextlib.contextmanager
def replaced_outputs(model: nn.Module, values: Mapping[str, Tensor]) -> Iterator[None]:
    """Replace the outputs of modules inside the context.

    Args:
        model: the model.
        values: path of a module -> value in the place of its output, or of the first element of an
            output with several elements.

    Raises:
        ValueError: for a path that names no module.
    """
    modules = modules_by_path(model) if values else {}
    with contextlib.ExitStack() as hooks:
        for path, value in values.items():
            if path not in modules:
                raise ValueError(
                    f"replace: {type(model).__name__} has no module '{path}'."
                    f"{suggestion(path, modules)}"
                )
            # Before the hooks of taps, which must record the new value.
            hook = functools.partial(_replace_output, value)
            handle = modules[path].register_forward_hook(hook, prepend=True)
            hooks.callback(handle.remove)
        yield


def _replace_output(value: Tensor, _module: nn.Module, _args: tuple[Any, ...], output: Any) -> Any:
    return type(output)((value, *output[1:])) if isinstance(output, (tuple, list)) else value
