"""A soft decision tree (Frosst & Hinton 2017)."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor, nn
from typing_extensions import Doc

from instil.cards import Positive, PositiveInt
from instil.core import to_float32

EPSILON = 1e-6
"""Bound of a share in the balance penalty, whose logarithm is unbounded."""


class SoftTree(nn.Module):
    """Binary tree whose inner nodes send a row to both sides, each with a probability.

    The probability of the right side is ``sigmoid(sharpness * (w x + b))``. With ``probabilities``,
    the logits are ``log sum_leaf P_leaf(x) softmax(q_leaf)``, with ``values`` they are
    ``sum_leaf P_leaf(x) q_leaf``. In train mode the output has the role ``loss``: the balance
    penalty of the paper's section 3, read by the objective ``own_loss``.

    Args:
        classes: number of classes, or of predicted numbers.
        features: number of features of a row.
        depth: number of levels; there are ``2 ** depth`` leaves.
        outputs: ``"probabilities"`` of classes or ``"values"``.
        sharpness: factor of the gates' logits.
        decay: factor of the penalty from one level to the next.
    """

    def __init__(
        self,
        classes: int,
        features: int,
        depth: int,
        outputs: Literal["probabilities", "values"],
        sharpness: float,
        decay: float,
    ):
        super().__init__()
        self.depth = depth
        self.outputs = outputs
        self.sharpness = sharpness
        self.decay = decay
        self.gates = nn.Linear(features, 2**depth - 1)
        self.leaves = nn.Parameter(0.1 * torch.randn(2**depth, classes))

    def forward(self, features: Tensor) -> Tensor | dict[str, Tensor]:
        """Compute logits (N, classes); in train mode ``logits`` and ``loss`` by name.

        Args:
            features: rows (N, F).
        """
        gate_logits = self.sharpness * to_float32(self.gates(features.flatten(1)))
        log_paths = self._log_paths(gate_logits)
        log_leaf = log_paths[-1]
        if self.outputs == "values":
            logits = log_leaf.exp() @ to_float32(self.leaves)
        else:
            log_leaves = F.log_softmax(to_float32(self.leaves), dim=1)
            logits = (log_leaf[:, :, None] + log_leaves).logsumexp(1)
        if not self.training:
            return logits
        return {"logits": logits, "loss": self._penalty(gate_logits, log_paths)}

    def _log_paths(self, gate_logits: Tensor) -> list[Tensor]:
        """Log probability (N, 2 ** level) of the nodes of each level, from the root to the leaves.

        The inner nodes are numbered by level, from left to right.
        """
        levels = [gate_logits.new_zeros(len(gate_logits), 1)]
        for level in range(self.depth):
            gates = gate_logits[:, 2**level - 1 : 2 ** (level + 1) - 1]
            sides = torch.stack([F.logsigmoid(-gates), F.logsigmoid(gates)], dim=2)
            levels.append((levels[-1][:, :, None] + sides).flatten(1))
        return levels

    def _penalty(self, gate_logits: Tensor, log_paths: list[Tensor]) -> Tensor:
        """Cross entropy between even use of both sides and their use in the batch (Eq. 4 and 5)."""
        penalty = gate_logits.new_zeros(())
        for level in range(self.depth):
            gates = gate_logits[:, 2**level - 1 : 2 ** (level + 1) - 1].sigmoid()
            path = log_paths[level].exp()
            share = (path * gates).sum(0) / path.sum(0).clamp(min=EPSILON)
            share = share.clamp(EPSILON, 1 - EPSILON)
            values = -0.5 * (share.log() + (1 - share).log())
            penalty = penalty + self.decay**level * values.sum()
        return penalty


def soft_tree(
    classes: PositiveInt,
    features: PositiveInt,
    depth: Annotated[int, Ge(1), Doc("number of levels; 2 ** depth leaves")] = 4,
    outputs: Literal["probabilities", "values"] = "probabilities",
    sharpness: Positive = 1.0,
    decay: float = 0.5,
) -> nn.Module:
    """Build a soft decision tree: 497 parameters for 2 classes, 30 features and 4 levels.

    Args:
        classes: number of classes, or of predicted numbers.
        features: number of features of a row.
        depth: number of levels; there are ``2 ** depth`` leaves.
        outputs: ``"probabilities"`` for classes; ``"values"`` for regression.
        sharpness: factor of the gates' logits; a high value gives harder decisions.
        decay: factor of the balance penalty from one level to the next.
    """
    return SoftTree(classes, features, depth, outputs, sharpness, decay)
