"""Peak memory of this process."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import torch


def peak_memory(device: torch.device) -> int:
    """Return the largest number of bytes that this process has used.

    Args:
        device: device of the training.

    Returns:
        Tensors on a CUDA device. On the CPU the resident memory of the whole process. 0 where it
        cannot be measured.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    try:
        resource: Any = importlib.import_module("resource")
    except ImportError:  # Windows
        return 0
    peak = int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    # Linux counts in kibibytes, macOS in bytes.
    return peak if sys.platform == "darwin" else 1024 * peak
