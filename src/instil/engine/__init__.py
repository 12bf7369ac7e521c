"""Devices, precision, processes, sharding and checkpoints.

No other package imports ``torch.distributed``.
"""

from instil.engine.cpu_offload import offload_blocks
from instil.engine.differentiable import gather_rows
from instil.engine.engine import Engine
from instil.engine.optimization import Optimization, find_optimizer
from instil.engine.processes import (
    RankError,
    clear_rank_errors,
    init_distributed,
    rank,
    wait_for_ranks,
    world_size,
)
from instil.engine.sharding import check_shardable

__all__ = [
    "Engine",
    "Optimization",
    "RankError",
    "check_shardable",
    "clear_rank_errors",
    "find_optimizer",
    "gather_rows",
    "init_distributed",
    "offload_blocks",
    "rank",
    "wait_for_ranks",
    "world_size",
]
