"""Decisions that the processes of a sharded network take together."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import nn


class Lockstep:
    """Answer to a question in all processes that have shards of a network.

    Each forward pass of a sharded network gathers its weights from all processes. They must
    therefore run the same number of passes, although their texts have different lengths. Without a
    sharded network, each process decides by itself.

    Args:
        networks: networks and functions that the processes call.
        device: device of the tensors of this process.
    """

    def __init__(self, networks: Iterable[object], device: torch.device):
        self.is_needed = any(is_sharded(network) for network in networks)
        self.device = device

    def any(self, flag: bool) -> bool:
        """Return whether ``flag`` is true in any process. Call it in all of them."""
        if not self.is_needed:
            return flag
        value = torch.tensor(int(flag), device=self.device)
        dist.all_reduce(value, dist.ReduceOp.MAX)
        return bool(value)

    def all(self, flag: bool) -> bool:
        """Return whether ``flag`` is true in every process. Call it in all of them."""
        return not self.any(not flag)


def is_sharded(network: object) -> bool:
    """Return whether the weights of a network are sharded over processes (FSDP2).

    Args:
        network: a network; other functions have no weights.
    """
    if not isinstance(network, nn.Module) or not dist.is_initialized():
        return False
    from torch.distributed.fsdp import FSDPModule

    return any(isinstance(part, FSDPModule) for part in network.modules())
