"""Small networks and batches of nodes for tests of schemes on graphs."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from instil.core import Batch, Net
from instil.networks.gcn import GCN
from instil.networks.mlp import MLP
from instil.tasks.node_classification import call

NUM_NODES = 24


def student(seed: int = 0) -> Net:
    torch.manual_seed(seed)
    return Net(MLP(3, 4, 8, 1), call)


def teacher(seed: int = 1) -> nn.Module:
    torch.manual_seed(seed)
    return Net(GCN(3, 4, 8, 1), call)


def nodes(step: int, edges: bool = False) -> Batch:
    """Nodes with two thirds of their labels, in a ring or without edges."""
    generator = torch.Generator().manual_seed(step)
    index = torch.arange(NUM_NODES)
    ring = torch.stack([index, (index + 1) % NUM_NODES])
    label = torch.randint(0, 3, (NUM_NODES,), generator=generator)
    label[::3] = -100
    return {
        "x": torch.randn(NUM_NODES, 4, generator=generator),
        "edge_index": ring if edges else ring[:, :0],
        "label": label,
        "index": index,
    }


def timed(batch: Batch, progress: float = 0.5) -> Batch:
    clock: dict[str, Any] = {"step": torch.tensor(0), "seed": torch.tensor(0)}
    return batch | clock | {"progress": torch.tensor(progress)}
