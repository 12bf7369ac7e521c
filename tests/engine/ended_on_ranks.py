"""Ends of the processes of a training; started by ``test_processes.py``."""

from __future__ import annotations

import atexit
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from instil.engine import clear_rank_errors, init_distributed


def write(path: Path) -> None:
    """Write whether the process group exists at the end of the first process."""
    if dist.is_initialized():
        dist.barrier()
    torch.save({"is_initialized": torch.tensor(dist.is_initialized())}, path)


def main() -> None:
    """End with an error in a training, or without one."""
    # Functions run in the opposite order, so this one comes after that of the library.
    atexit.register(write, Path(sys.argv[1]))
    init_distributed("cpu")
    if sys.argv[2] == "fails":
        try:
            with clear_rank_errors("Start again"):
                raise ValueError("wrong")
        except ValueError:
            sys.exit(0)


if __name__ == "__main__":
    main()
