"""Arguments for the outputs of the layers of a causal model."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import nn

LAYERS = frozenset({"hidden_states", "attentions"})
"""Roles that make a model return the outputs of all its layers."""


def layer_options(module: nn.Module, roles: Collection[str] | None) -> dict[str, Any]:
    """Return the arguments that make a model of transformers return the outputs of its layers.

    Args:
        module: the model, or its body.
        roles: roles that will be read; None stands for all.
    """
    config = getattr(module, "config", None)
    if not hasattr(config, "model_type"):
        return {}
    layers = LAYERS if roles is None else LAYERS.intersection(roles)
    options = {"output_hidden_states": True} if layers else {}
    # Only the eager implementation computes attention probabilities.
    if "attentions" in layers and getattr(config, "_attn_implementation", "") == "eager":
        options["output_attentions"] = True
    return options
