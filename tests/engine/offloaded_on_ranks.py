"""Trainings with an ensemble of offloaded teachers, on the ranks of this process group.

``test_cpu_offload.py`` starts this module on two processes.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch.distributed.fsdp import CPUOffloadPolicy, OffloadPolicy, fully_shard

from instil.core import Teacher
from instil.engine import Engine, Optimization, rank, sharding
from instil.engine.cpu_offload import offload_blocks
from instil.objectives.logits.kd import KD
from instil.schemes.offline.offline import Offline
from instil.teachers.ensemble import Ensemble
from instil.training.step import train_step
from tests.engine.sharded_on_ranks import STEPS, batch_of, texts


def trained(is_sharded: bool, is_offloaded: bool) -> dict[str, Any]:
    """Weights of the student, and the sharded units of the teacher: name, whether on the CPU."""
    engine = Engine("cpu", shard=is_sharded)
    # Weights that the processes draw differently: those of the first one count.
    teacher = Ensemble([texts(16, 1 + rank()), texts(8, 3 + rank())])
    if is_offloaded:
        assert len(offload_blocks(teacher.members[0])) == 2
    scheme = Offline(texts(8, 0), teacher, {"kd": KD()})
    scheme.prepare(batch_of(0))
    with record_policies() as policies:
        engine.setup(scheme, lambda learner: Optimization("adamw", {"lr": 0.01}))
    scheme.train()
    for step in range(STEPS):
        train_step(engine, scheme, [batch_of(step)])
    units = units_of(teacher, policies)
    state = engine.release(scheme).student.state_dict()
    weights = torch.cat([value.flatten() for value in state.values()])
    return {"weights": weights, "units": units}


def units_of(teacher: Teacher, policies: dict[nn.Module, OffloadPolicy]) -> list[tuple[str, bool]]:
    return [
        (name, isinstance(policies[part], CPUOffloadPolicy))
        for name, part in teacher.named_modules()
        if part in policies
    ]


@contextlib.contextmanager
def record_policies() -> Iterator[dict[nn.Module, OffloadPolicy]]:
    """Yield the policy of each unit that is sharded inside."""
    policies: dict[nn.Module, OffloadPolicy] = {}

    def recording(unit: nn.Module, offload_policy: OffloadPolicy, **options: Any) -> None:
        policies[unit] = offload_policy
        fully_shard(unit, offload_policy=offload_policy, **options)

    # Without an end it would keep the networks, whose process group then never ends.
    with mock.patch.object(sharding, "fully_shard", recording):
        yield policies


def main() -> None:
    """Train with and without shards and offload, and write the results of the first process."""
    # The first engine joins the processes, before which there seems to be one.
    Engine("cpu")
    results = {
        "replicated": trained(is_sharded=False, is_offloaded=False),
        "replicated, offloaded": trained(is_sharded=False, is_offloaded=True),
        "sharded": trained(is_sharded=True, is_offloaded=False),
        "sharded, offloaded": trained(is_sharded=True, is_offloaded=True),
    }
    if rank() == 0:
        torch.save(results, sys.argv[1])


if __name__ == "__main__":
    main()
