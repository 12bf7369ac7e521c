"""Wrapper that gives the output of a model the name of a role."""

from __future__ import annotations

from typing import Any

from torch import nn


class NamedOutputs(nn.Module):
    """Model whose output is a role.

    Args:
        model: the model.
        role: name of the output, such as ``features``.
    """

    def __init__(self, model: nn.Module, role: str):
        super().__init__()
        self.model = model
        self.role = role

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the output by its role; a list becomes a tuple."""
        output = self.model(*args, **kwargs)
        return {self.role: tuple(output) if isinstance(output, list) else output}
