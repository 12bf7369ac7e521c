"""Import of ultralytics without its changes of other libraries."""

from __future__ import annotations

import importlib
import os
import sys

import numpy as np
import torch

THREADS = "OMP_NUM_THREADS"
"""Variable that ultralytics sets to 1."""


def import_ultralytics() -> None:
    """Import ultralytics, and restore what its import changes in Pillow, PyTorch and NumPy.

    These are ``Image.open``, which installs a package when it meets an unreadable picture,
    ``torch.save``, the number of threads of later processes, and the format of printed arrays. If
    it is imported already, nothing changes.

    Raises:
        ImportError: if it is not installed.
    """
    if "ultralytics.utils" in sys.modules:
        return
    from PIL import Image

    opened, saved, array_format = Image.open, torch.save, np.get_printoptions()
    has_threads = THREADS in os.environ
    try:
        importlib.import_module("ultralytics")
    finally:
        Image.open = opened
        torch.save = saved
        np.set_printoptions(**array_format)
        torch.set_printoptions(profile="default")  # type: ignore[no-untyped-call]
        if not has_threads:
            os.environ.pop(THREADS, None)
