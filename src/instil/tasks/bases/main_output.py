"""Outputs of a model by name, and the main output of one that does not name them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from instil.core import Outputs


def outputs_by_role(result: Any, roles: Sequence[str]) -> Outputs:
    """Return the outputs of a model that are used; without names, the main one is ``logits``.

    Args:
        result: outputs by name, or a result that ``main_output`` accepts.
        roles: names of the outputs.

    Raises:
        ValueError: for any other result.

    Example:
        >>> outputs_by_role({"logits": 1, "loss": None, "other": 2}, ("logits", "loss"))
        {'logits': 1}
    """
    if isinstance(result, Mapping):
        return {role: result[role] for role in roles if result.get(role) is not None}
    return {"logits": main_output(result)}


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
