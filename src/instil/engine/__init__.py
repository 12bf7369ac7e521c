"""Devices, precision, processes, sharding and checkpoints: the only package that knows a distributed library."""

from instil.engine.engine import Engine
from instil.engine.optimization import Optimization, find_optimizer
from instil.engine.processes import (
    RankError,
    clear_rank_errors,
    gather_rows,
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
    "rank",
    "wait_for_ranks",
    "world_size",
]
