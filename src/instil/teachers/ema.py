"""A slow copy of a net that learns."""

from __future__ import annotations

import copy

import torch
from torch import nn

from instil.core import Batch, Card, Outputs, Teacher, as_net


class Ema(Teacher):
    """The exponential moving average of a net's weights (Tarvainen & Valpola 2017, eq. 2); buffers are copied.

    ``decay``: how much of itself it keeps at each step. ``roles``: the only roles that are read; None stands for all.
    """

    card = Card("Mean teacher", "https://arxiv.org/abs/1703.01780", "NeurIPS", 2017, source="self")
    changes = True

    def __init__(self, net: nn.Module, decay: float = 0.99):
        super().__init__()
        self.net, self.decay = as_net(copy.deepcopy(net)).eval().requires_grad_(False), decay
        self.roles: frozenset[str] | None = None

    def forward(self, batch: Batch, grad: bool = False) -> Outputs:
        with torch.set_grad_enabled(grad):
            outputs: Outputs = self.net(batch, roles=self.roles)
        return outputs

    @torch.no_grad()
    def follow(self, net: nn.Module) -> None:
        """Move towards ``net``, of the same architecture."""
        for slow, fast in zip(self.net.parameters(), net.parameters(), strict=True):
            slow.lerp_(fast, 1 - self.decay)
        for kept, moved in zip(self.net.buffers(), net.buffers(), strict=True):
            kept.copy_(moved)
