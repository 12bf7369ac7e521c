"""Number of threads of a run, which a resumed run and every worker must have."""

from __future__ import annotations

import torch

from instil.plan.run_folder import RunFolder


def restore_threads(folder: RunFolder) -> bool:
    """Set the number of threads that a run was started with.

    Another number would add floating-point numbers in another order.

    Args:
        folder: run folder.

    Returns:
        Whether the folder has an ``environment.json``.

    Raises:
        ValueError: if its ``environment.json`` is damaged.
    """
    remedy = "Delete it; the number of threads is chosen again then, and sums may round differently"
    environment = folder.read_json("environment.json", remedy)
    if environment is None:
        return False
    hardware = environment.get("hardware")
    count = hardware.get("threads") if isinstance(hardware, dict) else None
    if not isinstance(count, int) or count < 1:
        raise ValueError(
            f"{folder.path / 'environment.json'}: hardware.threads: expected a number above 0, got "
            f"{count}. {remedy}."
        )
    torch.set_num_threads(count)
    return True
