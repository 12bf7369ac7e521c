"""Sharded training that another number of processes continues, on the ranks of this process group.

``test_sharding.py`` starts this module on two and on four processes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from instil.core import Net
from instil.engine import Engine, Optimization, rank, world_size
from instil.networks.causal_transformer import causal_transformer
from instil.objectives.logits.kd import KD
from instil.schemes.offline.offline import Offline
from instil.teachers.frozen import Frozen
from instil.training.step import train_step

HALF = 2
STEPS = 4


def texts(width: int, seed: int) -> Net:
    torch.manual_seed(seed)
    return Net(causal_transformer(vocabulary=21, length=8, width=width, depth=2, heads=2))


def batch_of(step: int) -> dict[str, Tensor]:
    """Part of this process of a batch of 8 texts."""
    draw = torch.Generator().manual_seed(step)
    tokens = torch.randint(20, (8, 8), generator=draw).tensor_split(world_size())[rank()]
    clock = {"step": torch.tensor(step), "progress": torch.tensor(0.0), "seed": torch.tensor(0)}
    return {"tokens": tokens, "valid": torch.ones_like(tokens, dtype=torch.bool)} | clock


def halves(batch: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """Two micro-batches."""
    return [
        {key: value.tensor_split(2)[i] if value.ndim else value for key, value in batch.items()}
        for i in range(2)
    ]


def trained(
    group: int | None = None, save: Path | None = None, load: Path | None = None
) -> tuple[Tensor, int]:
    """Weights after all steps, and the bytes of the weights that this process keeps.

    Args:
        group: number of processes that share one copy.
        save: checkpoint to write after half of the steps.
        load: checkpoint to continue.
    """
    engine = Engine("cpu", shard=True, clip=1.0, shard_group=group)
    scheme = Offline(texts(8, 0), Frozen(texts(16, 1)), {"kd": KD()})
    scheme.prepare(batch_of(0))
    engine.setup(scheme, lambda learner: Optimization("adamw", {"lr": 0.01}))
    scheme.train()
    if load is not None:
        engine.load(scheme, load)
    for step in range(0 if load is None else HALF, STEPS):
        if step == HALF and save is not None:
            engine.save(scheme, save, {})
        train_step(engine, scheme, halves(batch_of(step)))
    local = sum(local_bytes(parameter) for parameter in scheme.parameters())
    state = engine.release(scheme).student.state_dict()
    return torch.cat([value.flatten() for value in state.values()]), local


def local_bytes(parameter: Tensor) -> int:
    return parameter.to_local().nbytes if isinstance(parameter, DTensor) else parameter.nbytes


def main() -> None:
    """Train, or continue a checkpoint, and write weights and bytes of the first process."""
    out = Path(sys.argv[1])
    checkpoint = out.parent / "checkpoint.pt"
    # The first engine joins the processes, before which there seems to be one.
    Engine("cpu")
    if world_size() == 2:
        weights, local = trained(save=checkpoint)
        results = {"weights": weights, "local": torch.tensor(local)}
    else:
        weights, local = trained(group=2)
        continued, _ = trained(group=2, load=checkpoint)
        on_all, _ = trained(load=checkpoint)
        results = {"weights": weights, "local": torch.tensor(local)}
        results |= {"continued": continued, "continued_on_all": on_all}
    if rank() == 0:
        torch.save(results, out)


if __name__ == "__main__":
    main()
