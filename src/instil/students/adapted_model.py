"""Model inside the wrapper of peft."""

from __future__ import annotations

from typing import Any

from torch import nn


def without_wrapper(model: nn.Module) -> Any:
    """Return the model of transformers, whose layers contain the adapters of peft.

    Args:
        model: a model, with or without the wrapper of peft, which hides its parts.

    Example:
        >>> model = nn.Linear(1, 1)
        >>> without_wrapper(model) is model
        True
    """
    has_wrapper = hasattr(model, "get_base_model")
    return model.get_base_model() if has_wrapper else model  # type: ignore[operator]
