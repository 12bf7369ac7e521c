"""A net with adapters, as it was without them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from instil.core import Batch, Card, Outputs, Teacher, as_net, dry


class AdapterOff(Teacher):
    """What the student says with its adapters switched off: the net that it began as, without a second copy of it (a model of peft, such as LoRA).

    Raises ValueError for a net without adapters.
    """

    card = Card(
        "LoRA: Low-Rank Adaptation of Large Language Models",
        "https://arxiv.org/abs/2106.09685",
        "ICLR",
        2022,
        source="self",
        tasks=("language",),
    )

    def __init__(self, net: nn.Module):
        super().__init__()
        net = as_net(net)
        if not hasattr(net.model, "disable_adapter"):
            raise ValueError(f"{type(net.model).__name__} has no adapters to switch off; make the student with LoRA (student.changes)")
        self._net = (net,)  # no part of this teacher: its parameters are the student's

    def forward(self, batch: Batch, grad: bool = False) -> Outputs:
        (net,) = self._net
        model: Any = net.model
        with dry(net), torch.set_grad_enabled(grad), model.disable_adapter():
            outputs: Outputs = net(batch)
        return outputs
