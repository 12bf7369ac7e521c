"""Fixed network as a teacher."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn.parameter import UninitializedParameter

from instil.core import Batch, Card, Outputs, Teacher, as_net


class Frozen(Teacher):
    """Fixed network in evaluation mode, whose parameters get no gradients.

    ``select_roles`` limits the taps to the roles that are read. The forward pass stops after the
    last of them if nothing later is read.

    Raises:
        ValueError: for a module with lazy parameters, which have no weights yet.
    """

    card = Card(
        "Fixed teacher", "https://arxiv.org/abs/1503.02531", "NIPS Workshop", 2014, source="offline"
    )

    def __init__(self, net: nn.Module):
        super().__init__()
        if any(isinstance(one, UninitializedParameter) for one in net.parameters()):
            raise ValueError(
                "teacher: it has lazy modules without weights. Expected trained weights. Call the "
                "module on a batch once, and load its weights"
            )
        self.net = as_net(net).eval().requires_grad_(False)
        self._roles: frozenset[str] | None = None
        self._stop = False

    def forward(self, batch: Batch, grad: bool = False) -> Outputs:
        if self.net.training:
            raise RuntimeError(
                "teacher: the network was put in train mode, and its outputs would depend on the "
                "batch. Expected eval mode. Call eval() on it"
            )
        with torch.set_grad_enabled(grad):
            outputs: Outputs = self.net(batch, roles=self._roles, stop=self._stop)
        return outputs

    def select_roles(self, roles: Iterable[str], batch: Batch) -> None:
        self._roles = frozenset(roles)
        # The rest of the network is skipped if all roles are computed before its end.
        self._stop = self.net.can_stop(self._roles, batch)
