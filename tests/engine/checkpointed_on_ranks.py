"""Sharded training with and without activation checkpointing, on the ranks of this process group.

``test_activation_checkpointing.py`` starts this module on two processes.
"""

import sys

import torch
from torch import Tensor

from instil.core import Net
from instil.engine import Engine, Optimization, rank
from instil.networks.causal_transformer import causal_transformer
from instil.objectives.logits.kd import KD
from instil.schemes.offline.offline import Offline
from instil.teachers.frozen import Frozen
from instil.training.step import train_step


def texts(width: int, seed: int) -> Net:
    torch.manual_seed(seed)
    return Net(causal_transformer(vocabulary=20, length=8, width=width, depth=2, heads=2))


def trained(is_checkpointed: bool) -> Tensor:
    # The first engine joins the processes, before which every rank is 0.
    engine = Engine("cpu", shard=True, activation_checkpointing=is_checkpointed)
    scheme = Offline(texts(8, 0), Frozen(texts(16, 1)), {"kd": KD()})
    draw = torch.Generator().manual_seed(rank())
    clock = {"step": torch.tensor(0), "progress": torch.tensor(0.0), "seed": torch.tensor(0)}
    tokens = torch.randint(20, (4, 8), generator=draw)
    batch = {"tokens": tokens, "valid": torch.ones(4, 8, dtype=torch.bool)} | clock
    scheme.prepare(batch)
    engine.setup(scheme, lambda learner: Optimization("sgd", {"lr": 0.1}))
    scheme.train()
    for _ in range(3):
        train_step(engine, scheme, [batch])
    state = engine.release(scheme).student.state_dict()
    return torch.cat([value.flatten() for value in state.values()])


def main() -> None:
    """Train twice and write both sets of weights."""
    ends = {"checkpointed": trained(True), "plain": trained(False)}
    if rank() == 0:
        torch.save(ends, sys.argv[1])


if __name__ == "__main__":
    main()
