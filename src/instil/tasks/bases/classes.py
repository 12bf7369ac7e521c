"""Base class of classification tasks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from instil.core import Batch
from instil.tasks.bases.scores import mistakes, scores
from instil.tasks.bases.task import Evaluation, Task


class ClassTask(Task):
    """Base class of tasks with ``logits`` (N, C) for the class of a sample, or for several.

    Labels are int64 (N,) for ``single``, float (N, C) for ``multi``, and float (N, 1) for
    ``binary``.
    """

    kinds: ClassVar[tuple[str, ...]] = ("single", "multi", "binary")
    aliases: ClassVar = {"pixel_values": "image", "labels": "label"}
    baselines: ClassVar = {
        "single": ("alone", "label_smoothing", "pseudo_labels"),
        "multi": ("alone", "pseudo_labels"),
        "binary": ("alone", "pseudo_labels"),
    }

    def check_data(self, batch: Batch) -> None:
        super().check_data(batch)
        label = batch["label"]
        if label.ndim < 2 or (label.ndim == 2 and label.is_floating_point()):
            return
        hint = ""
        if label.ndim == 2:
            hint = " One-hot labels: pass label.argmax(1). Several classes per sample: pass floats"
        raise ValueError(
            f"{self.title} needs one label a sample. Expected whole numbers (N,), or floats "
            f"(N, C) for several classes per sample, got {label.dtype} {tuple(label.shape)}.{hint}"
        )

    def evaluate(
        self, net: nn.Module, batches: Iterable[Any], teacher: nn.Module | None = None
    ) -> Evaluation:
        """Return metrics and details of a network in eval mode; see ``scores``.

        Args:
            net: network to evaluate.
            batches: batches of the test data; items with ``valid`` False are ignored.
            teacher: teacher for ``agreement``, if there is one.

        Raises:
            ValueError: if there are no items, no item is labelled, or a logit is not finite.
        """
        collected: list[tuple[Tensor, ...]] = []
        num_samples = 0
        for batch, outputs, teacher_outputs in self.iter_outputs(net, batches, teacher):
            label = batch["label"]
            rows = torch.arange(num_samples, num_samples + len(label), device=label.device)
            num_samples += len(rows)
            parts = [outputs["logits"], label, rows]
            if teacher is not None:
                parts.append(teacher_outputs["logits"])
            if "valid" in batch:
                parts = [part[batch["valid"]] for part in parts]
            collected.append(tuple(parts))
        logits, label, rows, *others = (torch.cat(parts) for parts in zip(*collected, strict=True))
        teacher_logits = others[0] if others else None
        metrics, details = scores(logits, label, teacher_logits, self.kind)
        if self.kind == "single" and "image" in self.inputs:
            details["mistakes"] = mistakes(logits, label, rows, teacher_logits)
        return metrics, details
