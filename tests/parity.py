"""Schemes that must end with the same weights however the batch is cut; started on two processes by ``test_parity.py``."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from instil.core import Batch, Net, Objectives, Outputs, Scheme
from instil.engine import Engine, Optimization, rank
from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.objectives.logits.dkd import DKD
from instil.objectives.logits.kd import KD
from instil.schemes.adversarial import Adversarial
from instil.schemes.ema import Ema
from instil.schemes.mutual import Mutual
from instil.schemes.offline import Offline
from instil.step import train_step
from instil.teachers.ensemble import Ensemble
from instil.teachers.frozen import Frozen

STEPS = 5


class Block(nn.Module):
    """A residual block, the unit of sharding."""

    def __init__(self, width: int):
        super().__init__()
        self.layer = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layer(x).relu()


class Body(nn.Module):
    """A small net with blocks and a head."""

    def __init__(self, width: int):
        super().__init__()
        self.stem, self.blocks, self.head = nn.Linear(20, width), nn.ModuleList([Block(width), Block(width)]), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def call(model: nn.Module, batch: Batch) -> Outputs:
    return {"logits": model(batch["x"])}


def net(width: int, seed: int) -> Net:
    torch.manual_seed(seed)
    return Net(Body(width), call, {"embedding": "head:in"})


def plain() -> Objectives:
    return Objectives({"cross_entropy": CrossEntropy(), "kd": KD()}, {"kd": 0.7})


SCHEMES: dict[str, Callable[[], Scheme]] = {
    "offline": lambda: Offline(net(16, 1), Frozen(net(32, 2)), Objectives({"cross_entropy": CrossEntropy(), "kd": KD(), "dkd": DKD()})),
    "alone": lambda: Offline(net(16, 1), None, {"cross_entropy": CrossEntropy()}),
    "ensemble": lambda: Offline(net(16, 1), Ensemble([net(32, 2), net(24, 3)]), plain()),
    "mutual": lambda: Mutual(net(16, 1), [net(24, 3), net(8, 4)], plain()),
    "ema": lambda: Ema(net(16, 1), plain(), decay=0.9),
    "adversarial": lambda: Adversarial(net(16, 1), Frozen(net(32, 2)), plain()),
}


def batch(seed: int, number: int = 64) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(0, 10, (number,), generator=generator)
    label[torch.rand(number, generator=generator) < 0.5] = -100
    return {"x": torch.randn(number, 20, generator=generator), "label": label, "index": torch.arange(number)}


def cut(whole: Batch, sizes: list[int]) -> list[Batch]:
    return [dict(zip(whole, parts, strict=True)) for parts in zip(*(value.split(sizes) for value in whole.values()), strict=True)]


def train(make: Callable[[], Scheme], sizes: list[int], share: slice = slice(None), shard: bool = False) -> Tensor:
    """All weights and buffers after five steps, this process being given ``share`` of every batch, cut into ``sizes``."""
    torch.manual_seed(0)
    scheme = make()
    scheme.prepare(batch(99))
    engine = Engine("cpu", shard=shard, clip=1.0)
    engine.setup(scheme, lambda learner: Optimization("sgd", {"lr": 0.1, "momentum": 0.9}))
    for step in range(STEPS):
        clock = {"step": torch.tensor(step), "progress": torch.tensor(step / STEPS), "seed": torch.tensor(0)}
        mine = {key: value[share] for key, value in batch(step).items()}
        train_step(engine, scheme, [part | clock for part in cut(mine, sizes)])
    tensors = [t.full_tensor() if hasattr(t, "full_tensor") else t for t in (*scheme.parameters(), *scheme.buffers())]
    return torch.cat([t.detach().flatten().float() for t in tensors])


if __name__ == "__main__":
    torch.set_num_threads(1)
    out, shard = Path(sys.argv[1]), sys.argv[2] == "shard"
    Engine("cpu")  # joins the process group
    first = int(os.environ["RANK"]) == 0
    ends = {name: train(make, [20, 20] if first else [23, 1], slice(0, 40) if first else slice(40, 64), shard) for name, make in SCHEMES.items()}
    if rank() == 0:
        torch.save(ends, out)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
