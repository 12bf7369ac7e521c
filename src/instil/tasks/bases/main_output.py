"""Main output of a model that does not name its outputs."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def main_output(result: Any, role: str = "logits") -> Tensor:
    """Return the tensor of a role from the result of a model.

    Args:
        result: a tensor; a tuple or list, whose first value is used; or an object, such as a data
            class or a named tuple, with the role as an attribute.
        role: name of the attribute.

    Raises:
        ValueError: for any other result.

    Example:
        >>> import torch
        >>> main_output((torch.ones(1), "auxiliary"))
        tensor([1.])
    """
    named = getattr(result, role, None)
    if isinstance(named, Tensor):
        return named
    value = result[0] if isinstance(result, (tuple, list)) and result else result
    if not isinstance(value, Tensor):
        raise ValueError(
            f"model: returned a {type(value).__name__}. Expected a tensor, a tuple that begins "
            f"with one, or an object with '{role}'. Pass a Net with a call that returns outputs by "
            "role"
        )
    return value
