"""Experiment trackers: functions that return a ``report`` callback of ``distil`` and ``fit``."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

Report = Callable[[Mapping[str, Any]], None]
"""Function that is called with each record of a training."""


def tensorboard(folder: Path | str) -> Report:
    """Write records as TensorBoard scalars.

    Args:
        folder: folder of the event files.

    Returns:
        Value for ``report``.

    Raises:
        ImportError: if tensorboard is not installed.

    Example:
        ``instil.distil(teacher, student, loader, report=tensorboard("runs/kd"))``
    """
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder))

    def report(record: Mapping[str, Any]) -> None:
        for name, value in scalars(record):
            writer.add_scalar(name, value, record["step"])
        writer.flush()

    return report


def wandb(project: str, **options: Any) -> Report:
    """Write records to a run of Weights & Biases.

    Args:
        project: name of the project.
        **options: further arguments of ``wandb.init``, such as ``name``, or ``mode="offline"``.

    Returns:
        Value for ``report``.

    Raises:
        ImportError: if wandb is not installed.
    """
    library: Any = importlib.import_module("wandb")
    run = library.init(project=project, **options)

    def report(record: Mapping[str, Any]) -> None:
        run.log(dict(scalars(record)), step=record["step"])

    return report


def mlflow(**options: Any) -> Report:
    """Write records to the active run of MLflow; start one if there is none.

    Args:
        **options: arguments of ``mlflow.start_run``, such as ``run_name``.

    Returns:
        Value for ``report``.

    Raises:
        ImportError: if mlflow is not installed.
    """
    library: Any = importlib.import_module("mlflow")
    run = library.active_run() or library.start_run(**options)

    def report(record: Mapping[str, Any]) -> None:
        library.log_metrics(dict(scalars(record)), step=record["step"], run_id=run.info.run_id)

    return report


def scalars(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yield the numbers of a record with names such as ``losses/kd``; ``step`` is left out.

    Args:
        record: a record of ``fit``.
        prefix: start of the names.

    Example:
        >>> list(scalars({"step": 3, "lr": 0.1, "losses": {"kd": 2.0}}))
        [('lr', 0.1), ('losses/kd', 2.0)]
    """
    for name, value in record.items():
        if isinstance(value, Mapping):
            yield from scalars(value, f"{prefix}{name}/")
        elif isinstance(value, (int, float)) and not isinstance(value, bool) and name != "step":
            yield f"{prefix}{name}", float(value)
