"""Cut-invariance: one batch, uneven micro-batches, uneven ranks and sharding give the same weights."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.parity import SCHEMES, train


@pytest.fixture(scope="module")
def whole() -> dict[str, torch.Tensor]:
    return {name: train(make, [64]) for name, make in SCHEMES.items()}


@pytest.mark.parametrize("name", SCHEMES)
def test_micro_batches_give_the_same_weights(name: str, whole: dict[str, torch.Tensor]) -> None:
    assert (train(SCHEMES[name], [30, 3, 20, 11]) - whole[name]).abs().max() < 1e-6


@pytest.mark.parametrize("kind", ["replicate", "shard"])
def test_two_uneven_ranks_give_the_same_weights(kind: str, whole: dict[str, torch.Tensor], tmp_path: Path) -> None:
    ends = on_two_ranks("tests.parity", tmp_path / "ends.pt", kind)
    assert set(ends) == set(whole)
    for name, weights in ends.items():
        assert (weights - whole[name]).abs().max() < 1e-6, name


def on_two_ranks(module: str, out: Path, *arguments: str) -> dict[str, torch.Tensor]:
    """What the module saved when it ran as two gloo processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = os.environ | {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", module, str(out), *arguments]
    ranks = [subprocess.Popen(command, env=environment | {"RANK": str(rank)}, stderr=subprocess.PIPE, text=True) for rank in range(2)]
    errors = [rank.communicate(timeout=240)[1] for rank in ranks]
    assert all(rank.returncode == 0 for rank in ranks), "\n".join(errors)
    return torch.load(out, weights_only=True)
