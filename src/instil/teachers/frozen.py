"""A net that never learns."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from instil.core import Batch, Card, Outputs, Teacher, as_net


class Frozen(Teacher):
    """One fixed net, without gradients; of its taps it keeps what is read, and where that is all, its forward stops after the last of them."""

    card = Card(
        "Fixed teacher", "https://arxiv.org/abs/1503.02531", "NIPS Workshop", 2014, source="offline"
    )

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = as_net(net).eval().requires_grad_(False)
        self._roles: frozenset[str] | None = None
        self._stop = False

    def forward(self, batch: Batch, grad: bool = False) -> Outputs:
        if self.net.training:
            raise RuntimeError(
                "the teacher's net was put in train mode, past its wrapper; leave it in eval mode, or its answers change by the batch"
            )
        with torch.set_grad_enabled(grad):
            outputs: Outputs = self.net(batch, roles=self._roles, stop=self._stop)
        return outputs

    def select_roles(self, roles: Iterable[str], batch: Batch) -> None:
        self._roles = frozenset(roles)
        self._stop = self.net.can_stop(self._roles, batch)
