"""Evaluation of exported language models by lm-evaluation-harness."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from instil.cards import suggestion


def lm_eval_metrics(
    folder: str | Path,
    tasks: Sequence[str],
    task_folder: str | Path | None = None,
    *,
    batch_size: int = 8,
    limit: int | None = None,
    device: str | None = None,
    **options: Any,
) -> dict[str, float]:
    """Evaluate an exported student on tasks of lm-evaluation-harness.

    Args:
        folder: run folder whose student ``instil export`` wrote, or any folder that
            ``save_pretrained`` wrote.
        tasks: names of tasks.
        task_folder: folder with the YAML files of tasks of your own, which replace those of the
            package. None: tasks of the package.
        batch_size: number of requests in a batch.
        limit: largest number of samples of each task. None: all.
        device: device of the model, such as ``"cuda:0"``. None: a GPU if there is one.
        **options: further options of ``lm_eval.simple_evaluate``, such as ``num_fewshot``.

    Returns:
        ``TASK/METRIC`` -> value. A filter follows the metric after a comma, such as
        ``gsm8k/exact_match,strict-match``; standard errors are ``TASK/METRIC_stderr``.

    Raises:
        ImportError: without the package lm-eval.
        ValueError: for a folder without a model, and an unknown task.
    """
    model_folder = _model_folder(Path(folder))
    try:
        import lm_eval  # type: ignore[import-not-found, import-untyped, unused-ignore]
        from lm_eval.tasks import (  # type: ignore[import-not-found, import-untyped, unused-ignore]
            TaskManager,
        )
    except ImportError as error:
        raise ImportError(
            "lm_eval_metrics needs the package lm-eval. Install it with pip install lm-eval"
        ) from error
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    own = None if task_folder is None else str(task_folder)
    manager = TaskManager(include_path=own, include_defaults=own is None)
    for name in tasks:
        if name not in manager.all_tasks:
            source = "the package" if own is None else own
            hint = suggestion(name, manager.all_tasks)
            raise ValueError(f"tasks: {source} has no task '{name}'.{hint}")
    model = {"pretrained": str(model_folder), "dtype": "float32"}
    evaluation: Any = lm_eval.simple_evaluate(
        model="hf",
        model_args=model,
        tasks=list(tasks),
        task_manager=manager,
        batch_size=batch_size,
        limit=limit,
        device=device,
        log_samples=False,
        **options,
    )
    return _by_task_and_metric(evaluation["results"])


def _model_folder(folder: Path) -> Path:
    """Folder of the model: a folder itself, or the exported student of a run."""
    for candidate in (folder / "student", folder):
        if (candidate / "config.json").is_file():
            return candidate
    raise ValueError(
        f"folder: {folder} has no model. Expected a folder that save_pretrained wrote, or a run "
        "with an exported student. Run instil export"
    )


def _by_task_and_metric(results: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Numbers of all tasks; ``METRIC,none`` is a metric without a filter."""
    metrics = {}
    for task, values in results.items():
        for key, value in values.items():
            if "," in key and isinstance(value, float):
                metrics[f"{task}/{key.removesuffix(',none')}"] = value
    return metrics
