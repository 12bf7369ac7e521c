"""Self-distillation from the last mini-batch: a sample seen twice in a row is told what was said of it a step ago."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor

from instil.core import Batch, Card, Outputs, Positive, full, items
from instil.objectives.logits.kd import KD


class DLB(KD):
    """KD from the student's own logits (N, ..., C) of the step before, for the samples (by ``index``) that were in it; the others do not count.

    ``temperature``: divides the logits.
    ``size``: rows kept, at least as many as a step has samples.

    It needs a loader that brings back half of each batch in the next one, with another augmentation.
    """

    card = Card(
        "Self-Distillation from the Last Mini-Batch for Consistency Regularization",
        "https://arxiv.org/abs/2203.16172",
        "CVPR",
        2022,
        source="logits",
        labels=("single", "binary"),
        equation=r"T^2 \mathrm{KL}(p_T(x'; \theta_{k-1}) \Vert p_T(x; \theta_{k})), \quad x', x \text{ two augmentations of one sample, } k \text{ "
        r"the step}",
        use="Self-distillation without a teacher and without a second forward pass, for predictions that stay the same from step to step; the "
        "paper also shows it under label noise. It keeps the logits of one step.",
        pitfalls="With an ordinary shuffled loader hardly a sample comes back in the next step and the loss is almost always zero, which looks "
        "like a match. It needs the samples' index. The published runs see every sample twice an epoch, so compare at equal steps, not at equal "
        "epochs.",
    )
    needs: ClassVar = {"student": (("logits",),), "teacher": ()}

    def __init__(self, temperature: Positive = 3.0, size: Annotated[int, Ge(1)] = 1024):
        super().__init__(temperature)
        self.size = size
        self.register_buffer("owner", torch.full((size,), -1))
        self.owner: Tensor
        self.before: Tensor
        self.counted: Tensor

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """Room for a step's logits; nobody's at first, so that the first step counts no item."""
        logits: Tensor = student["logits"]
        self.owner = self.owner.to(logits.device)
        self.register_buffer("before", full(logits).new_zeros(self.size, *logits.shape[1:]))
        self.register_buffer(
            "counted",
            torch.zeros(self.size, *logits.shape[1:-1], dtype=torch.bool, device=logits.device),
        )

    def find(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Of each sample: its row, and whether the last step had it. Raises ValueError where the batch has no ``index``."""
        if "index" not in batch:
            raise ValueError(
                f"{type(self).__name__} needs 'index' in the batch, which has {', '.join(batch)}; let the data set return it"
            )
        same = batch["index"][:, None] == self.owner
        return same.int().argmax(1), same.any(1)

    def weight(self, batch: Batch) -> Tensor:
        row, there = self.find(batch)
        weight, counted = super().weight(batch), self.counted[row]
        if counted.ndim > weight.ndim:
            counted = counted.flatten(1).any(1)
        return weight * counted * there.view(-1, *[1] * (weight.ndim - 1))

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        return super().forward(student, {"logits": self.before[self.find(batch)[0]]}, batch)

    def keep(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        logits, counts = student["logits"], items(batch) > 0
        counts = counts.view(*counts.shape, *[1] * (logits.ndim - 1 - counts.ndim)).expand(
            logits.shape[:-1]
        )
        # Rows that do not count hold stand-ins that depend on the micro-batch: they are not kept.
        logits = torch.where(counts.unsqueeze(-1), logits, 0.0)
        return {"index": batch["index"], "logits": logits, "counts": counts}

    def after_step(self, kept: dict[str, Tensor]) -> None:
        """This step's logits take the place of the last one's. Raises ValueError for a step of more than ``size`` samples."""
        if not kept:
            return
        number = len(kept["index"])
        if number > self.size:
            raise ValueError(
                f"size: a step of {number} samples does not fit into {self.size} rows; set size to {number} or more"
            )
        self.owner.fill_(-1)
        self.owner[:number] = torch.where(
            kept["counts"].flatten(1).any(1) if kept["counts"].ndim > 1 else kept["counts"],
            kept["index"],
            -1,
        )
        self.counted[:number] = kept["counts"]
        self.before[:number] = kept["logits"].to(self.before.dtype)
