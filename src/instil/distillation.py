"""Distillation in one call, without a recipe."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from instil import catalogue
from instil.core import Batch, Net, Outputs, Teacher
from instil.data.iterable_dataset import IterableDatasetLoader, check_has_length, yields_samples
from instil.engine import Optimization, rank, world_size
from instil.items.loader_items import as_loader
from instil.offline_scheme import SEVERAL, ObjectiveSpecs, offline_scheme
from instil.progress import RunProgress
from instil.roles import LazyOutputs
from instil.tasks.bases.loader import TaskLoader, task_loader
from instil.tasks.bases.task import Task
from instil.training.fit import FitResult, Record, Training, fit

CHECKPOINT_MINUTES = 10
"""Largest age of the last checkpoint without a training of the user."""


def distil(
    teacher: nn.Module | Sequence[nn.Module],
    student: nn.Module,
    loader: Iterable[Any],
    objectives: ObjectiveSpecs | None = None,
    *,
    epochs: int = 20,
    steps: int | None = None,
    batch_size: int = 64,
    workers: int = 0,
    lr: float = 1e-3,
    training: Training | None = None,
    task: str | Task = "classification",
    names: Sequence[str] | None = None,
    validation: Iterable[Any] | None = None,
    checkpoint: Path | str | None = None,
    report: Callable[[Record], None] | None = None,
    progress: bool = True,
) -> FitResult:
    """Train ``student`` to reproduce ``teacher`` on the batches of ``loader``.

    The student is trained in place and left in eval mode. The net of the result wraps it for the
    task, and is also in eval mode. The teacher keeps its weights, and is left in eval mode.

    Args:
        teacher: module, or several modules, whose logits are averaged.
        student: module. The taps of an unknown model come from one forward pass if an objective
            reads features; a ``Net`` keeps its taps.
        loader: yields dicts, or tuples in the order of the task: ``(image, label)`` for
            classification, ``(image, mask)`` for segmentation. Batches of Hugging Face
            (``pixel_values``, ``labels``) and uint8 images are accepted. -100 marks a missing
            label. The samples of an ``IterableDataset`` are batched.
        objectives: ``"kd"``, ``["cross_entropy", "kd"]``, or name -> weight, objective,
            ``(objective, weight)`` or options as in a recipe (``{"kd": {"temperature": 4, "weight":
            0.5}}``). Default: the loss on labels, and on all samples ``dist`` for three or more
            classes, ``logit_mse`` for numbers, and ``kd`` for other labels.
        epochs: passes over the loader.
        steps: optimizer steps instead of ``epochs``, for a loader without a length.
        batch_size: samples per batch of an ``IterableDataset``; a loader has its own.
        workers: processes that read an ``IterableDataset`` ahead; a loader has its own.
        lr: learning rate of AdamW with a cosine schedule.
        training: replaces ``epochs``, ``steps`` and ``lr``.
        task: name of the task, such as ``"segmentation"`` or ``"regression"``; or a task, such as
            ``Detection("boxes")``.
        names: keys of the values of a tuple, such as ``("image", "label", "index")``; None: those
            that the task expects.
        validation: validation batches, for metrics and agreement with the teacher in each record.
        checkpoint: file, written after each epoch and every 10 minutes, or as often as ``training``
            sets. Training continues from it if it exists.
        report: called with each record.
        progress: whether to show the progress on stderr; without a terminal, every 30 seconds.

    Returns:
        The net, one record per epoch, and the training time.

    Raises:
        ValueError: for unknown names, wrong options or labels, and settings that contradict each
            other.
        RuntimeError: if a loss or an output of the teacher is not finite.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> teacher = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
        >>> student = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
        >>> loader = [(torch.randn(8, 3, 2, 2), torch.tensor([0, 1] * 4))]
        >>> result = distil(teacher, student, loader, "kd", epochs=2, progress=False)
        >>> len(result.records)
        2
    """
    task_of_run: Task = task if isinstance(task, Task) else catalogue.find("task", task)()
    if training is None:
        training = _default_training(loader, epochs, steps, lr, checkpoint)
    loader, held_out_loader = as_loader(loader), _validation(validation)
    keys = names or task_of_run.names
    if yields_samples(loader):
        loader = IterableDatasetLoader(loader, keys, batch_size, workers, rank(), world_size())
    if yields_samples(held_out_loader):
        held_out_loader = IterableDatasetLoader(held_out_loader, keys, batch_size, drop_last=False)
    with ExitStack() as stack:
        stack.enter_context(_gradients_restored(teacher))
        scheme = offline_scheme(teacher, student, loader, objectives, task_of_run, names)
        frozen = scheme.teacher
        if frozen is None:
            raise ValueError("teacher: Expected a module or a list of modules, got None")
        stack.callback(_remove_new_taps, frozen, teacher)
        batches = task_loader(loader, task_of_run, scheme.student, names)
        evaluate = None
        if held_out_loader is not None:
            held_out = task_loader(held_out_loader, task_of_run, scheme.student, names)
            evaluate = _evaluation(task_of_run, held_out, frozen)
        stack.enter_context(_watched(frozen))
        shown = stack.enter_context(_progress(progress))
        return fit(
            scheme,
            batches,
            _with_metric(training, task_of_run),
            names=batches.names,
            evaluate=evaluate,
            checkpoint=checkpoint,
            report=shown.reporting(report),
            on_step=lambda clock: shown.update(clock.step, clock.steps),
        )


def _default_training(
    loader: Any, epochs: int, steps: int | None, lr: float, checkpoint: Path | str | None
) -> Training:
    optimizer = Optimization(options={"lr": lr})
    every, minutes = (None, None) if checkpoint is None else (1, CHECKPOINT_MINUTES)
    if steps is None:
        check_has_length(loader)
    return Training(
        epochs=epochs if steps is None else None,
        steps=steps,
        optimizer=optimizer,
        checkpoint_every=every,
        checkpoint_minutes=minutes,
    )


def _validation(validation: Iterable[Any] | None) -> Iterable[Any] | None:
    """Return the loader of validation batches, which several evaluations read."""
    if isinstance(validation, Iterator):
        raise ValueError(
            f"validation: a {type(validation).__name__} can be read only once. Expected an "
            "iterable for several evaluations. Pass a list or a DataLoader"
        )
    return None if validation is None else as_loader(validation)


@contextmanager
def _gradients_restored(teacher: Any) -> Iterator[None]:
    """Restore which parameters of the teacher get gradients."""
    parts = [part for part in _members(teacher) if isinstance(part, nn.Module)]
    values = list(nn.ModuleList(parts).parameters())
    flags = [value.requires_grad for value in values]
    try:
        yield
    finally:
        for value, flag in zip(values, flags, strict=True):
            if value.requires_grad != flag:
                value.requires_grad_(flag)


def _remove_new_taps(frozen: Teacher, teacher: Any) -> None:
    """Remove the hooks of nets that were made around the modules of the user."""
    own: set[nn.Module] = set()
    for part in _members(teacher):
        own.update(part.modules())
    for net in frozen.modules():
        if isinstance(net, Net) and net not in own:
            net.remove_taps()


def _members(teacher: Any) -> Sequence[Any]:
    return list(teacher) if isinstance(teacher, SEVERAL) else [teacher]


def _evaluation(
    task: Task, batches: TaskLoader, teacher: Teacher
) -> Callable[[Net], Mapping[str, float]]:
    """Return a function from a net to its metrics and its agreement with the teacher."""

    def evaluate(net: Net) -> Mapping[str, float]:
        return task.evaluate(net, batches, teacher)[0]

    return evaluate


def _with_metric(training: Any, task: Task) -> Any:
    """Return a training that compares its evaluations, by default with the task's metric."""
    # Another type is an error of fit.
    if not isinstance(training, Training) or training.metric is not None:
        return training
    return replace(training, metric=task.headline, higher_is_better=task.higher_is_better)


def _progress(is_shown: bool) -> RunProgress:
    """Return the progress display on stderr; only the first process shows it."""
    from rich.console import Console

    return RunProgress(Console(stderr=True), 1, enabled=is_shown and rank() == 0)


@contextmanager
def _watched(teacher: Teacher) -> Iterator[None]:
    """Name the teacher in the error of a training that stopped because its logits are NaN."""
    flags: list[Tensor] = []

    def check(_module: nn.Module, _inputs: Any, outputs: Outputs | Batch) -> None:
        logits = None if isinstance(outputs, LazyOutputs) else outputs.get("logits")
        if isinstance(logits, Tensor):
            # A comparison on the host would wait for the device in every step.
            is_nan = logits.detach().isnan().any()
            flags[:] = [is_nan | flags[0] if flags else is_nan]

    hook = teacher.register_forward_hook(check)
    try:
        yield
    except RuntimeError as error:
        if flags and bool(flags[0]):
            raise RuntimeError(
                f"teacher: its logits are NaN. Expected finite logits. Check the teacher in eval "
                f"mode on these inputs, or its weights ({error})"
            ) from error
        raise
    finally:
        hook.remove()
