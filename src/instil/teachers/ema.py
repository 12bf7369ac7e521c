"""Moving average of a network in training."""

from __future__ import annotations

import copy
from typing import Annotated

import torch
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Batch, Card, Outputs, Teacher, as_net


class Ema(Teacher):
    """Exponential moving average of a network's weights (Tarvainen & Valpola 2017, Eq. 2).

    Buffers are copied. The average of weights in half precision is kept in float32. The attribute
    ``roles`` limits the roles that are computed; None: all.
    """

    card = Card(
        "Mean teacher",
        "https://arxiv.org/abs/1703.01780",
        "NeurIPS",
        2017,
        source="self",
        tags=("stateful",),
    )

    def __init__(
        self,
        net: nn.Module,
        decay: Annotated[float, Doc("share of the average that remains in each step")] = 0.99,
    ):
        super().__init__()
        # Copied before freezing: the network itself stays trainable.
        self.net = as_net(copy.deepcopy(net)).eval().requires_grad_(False)
        self.decay = decay
        self.roles: frozenset[str] | None = None
        for index, parameter in enumerate(self.net.parameters()):
            # In half precision a small step towards the network would be rounded away.
            if parameter.dtype in (torch.float16, torch.bfloat16):
                self.register_buffer(_average(index), parameter.detach().float())

    def forward(self, batch: Batch, grad: bool = False) -> Outputs:
        with torch.set_grad_enabled(grad):
            outputs: Outputs = self.net(batch, roles=self.roles)
        return outputs

    @torch.no_grad()
    def follow(self, net: nn.Module, decay: Tensor | None = None) -> None:
        """Move towards ``net``.

        Args:
            net: network of the same architecture.
            decay: decay of this update (scalar) instead of the one of the constructor.
        """
        pairs = zip(self.net.parameters(), net.parameters(), strict=True)
        for index, (parameter, fast) in enumerate(pairs):
            slow = self._buffers.get(_average(index))
            slow = parameter if slow is None else slow
            # A decay that is a tensor stays on the device; a number would wait for it.
            weight = 1 - self.decay if decay is None else (1 - decay).to(slow.dtype)
            slow.lerp_(fast.to(slow.dtype), weight)
            if slow is not parameter:
                parameter.copy_(slow)
        # Not averaged: counters are integers, and running statistics are averages already.
        for own, current in zip(self.net.buffers(), net.buffers(), strict=True):
            own.copy_(current)


def _average(index: int) -> str:
    """Name of the buffer with the average of a parameter in half precision."""
    return f"average_{index}"
