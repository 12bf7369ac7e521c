"""Sharded training in bfloat16, on the ranks of this process group.

``test_shard_precision.py`` starts this module on two processes.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from instil.core import Scheme
from instil.engine import Engine, Optimization, rank
from instil.objectives.logits.kd import KD
from instil.schemes.offline.offline import Offline
from instil.teachers.frozen import Frozen
from instil.training.step import train_step
from tests.engine.sharded_on_ranks import STEPS, batch_of, texts


def gathered_types(scheme: Scheme) -> set[torch.dtype]:
    """Types of the weights that the layers of all networks read in the passes after this call."""
    types: set[torch.dtype] = set()
    for part in scheme.modules():
        if isinstance(part, (nn.Linear, nn.Embedding, nn.LayerNorm)):
            part.register_forward_pre_hook(lambda part, _: types.add(part.weight.dtype))
    return types


def train() -> dict[str, Any]:
    """Weights after all steps, and the types of weights, sums of gradients and states."""
    engine = Engine("cpu", "bfloat16", shard=True, clip=1.0)
    scheme = Offline(texts(8, 0), Frozen(texts(16, 1)), {"kd": KD()})
    scheme.prepare(batch_of(0))
    engine.setup(scheme, lambda learner: Optimization("adamw", {"lr": 0.01}))
    scheme.train()
    gathered = gathered_types(scheme)
    for step in range(STEPS):
        train_step(engine, scheme, [batch_of(step)])
    assert scheme.teacher is not None
    states: list[Tensor] = []
    for state in engine.optimizers["student"].state.values():
        states += [value for value in state.values() if isinstance(value, DTensor)]
    kinds = {
        "gathered": gathered,
        "student": {parameter.dtype for parameter in scheme.student.parameters()},
        "gradients": {parameter.grad.dtype for parameter in engine.parameters["student"]},
        "states": {state.dtype for state in states},
        "teacher": {parameter.dtype for parameter in scheme.teacher.parameters()},
    }
    state = engine.release(scheme).student.state_dict()
    weights = torch.cat([value.flatten() for value in state.values()])
    return {"weights": weights, "types": {name: [*types] for name, types in kinds.items()}}


def main() -> None:
    """Train, and write the results of the first process."""
    results = train()
    if rank() == 0:
        torch.save(results, Path(sys.argv[1]))


if __name__ == "__main__":
    main()
