"""What tasks have in common that decide on the class of a sample, or on several."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from instil.core import Batch
from instil.tasks.bases.scores import mistakes, scores
from instil.tasks.bases.task import Evaluation, Task


class ClassTask(Task):
    """Base of the tasks with ``logits`` (N, C); labels are int64 (N,) for ``single``, float (N, C) for ``multi``, (N, 1) for ``binary``."""

    kinds: ClassVar[tuple[str, ...]] = ("single", "multi", "binary")
    aliases: ClassVar = {"pixel_values": "image", "labels": "label"}
    baselines: ClassVar = {
        "single": ("alone", "label_smoothing", "pseudo_labels"),
        "multi": ("alone", "pseudo_labels"),
        "binary": ("alone", "pseudo_labels"),
    }

    def check_data(self, batch: Batch) -> None:
        super().check_data(batch)
        if batch["label"].ndim > 2 or (
            batch["label"].ndim == 2 and not batch["label"].is_floating_point()
        ):
            remedy = (
                " One-hot labels: pass label.argmax(1). Several classes per sample: pass floats"
                if batch["label"].ndim == 2
                else ""
            )
            raise ValueError(
                f"{self.title} needs one label a sample. Expected whole numbers (N,), or floats "
                f"(N, C) for several classes per sample, got {batch['label'].dtype} "
                f"{tuple(batch['label'].shape)}.{remedy}"
            )

    def evaluate(
        self, net: nn.Module, batches: Iterable[Any], teacher: nn.Module | None = None
    ) -> Evaluation:
        """Metrics and details (see ``scores``) of a net over what counts in ``batches``, in eval mode; with a teacher also how often both agree."""
        collected: list[tuple[Tensor, ...]] = []
        seen = 0
        for batch, mine, theirs in self.answers(net, batches, teacher):
            rows = torch.arange(seen, seen + len(batch["label"]), device=batch["label"].device)
            seen += len(rows)
            parts = (
                mine["logits"],
                batch["label"],
                rows,
                *([] if teacher is None else [theirs["logits"]]),
            )
            collected.append(
                tuple(part[batch["valid"]] for part in parts) if "valid" in batch else parts
            )
        logits, label, rows, *others = (torch.cat(parts) for parts in zip(*collected, strict=True))
        metrics, details = scores(logits, label, others[0] if others else None, self.kind)
        if self.kind == "single" and "image" in self.inputs:
            teacher_logits = others[0] if others else None
            details["mistakes"] = mistakes(logits, label, rows, teacher_logits)
        return metrics, details
