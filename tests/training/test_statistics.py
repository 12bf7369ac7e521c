"""Statistics of teacher outputs, on several processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch

from tests.training.statistics_on_ranks import trained


def test_prototypes_of_two_processes_are_those_of_one(tmp_path: Path) -> None:
    """Uneven rows: the same samples, in the same order."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "tests.training.statistics_on_ranks", str(tmp_path / "weights.pt")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    root = Path(__file__).parents[2]
    subprocess.run(command, check=True, cwd=root, env=environment, timeout=300)
    weights = torch.load(tmp_path / "weights.pt", weights_only=True)
    for key, value in trained().items():
        torch.testing.assert_close(weights[key], value)
