"""Self-distillation from the last mini-batch, for samples that appear in two successive steps."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, Outputs, Positive, item_weights, to_float32
from instil.objectives.logits.kd import KD

TOKEN_DIMS = 3
"""Dimensions of the logits (N, T, C) of tokens."""


class DLB(KD):
    """KD from the student's own logits of the previous step, for samples that were in it.

    Logits are (N, C), or (N, H, W, C) of pixels. Samples are matched by ``index``; the others do
    not count. The loader must repeat half of each batch in the next one, with another augmentation.
    """

    card = Card(
        "Self-Distillation from the Last Mini-Batch for Consistency Regularization",
        "https://arxiv.org/abs/2203.16172",
        "CVPR",
        2022,
        source="logits",
        labels=("single", "binary"),
        equation=r"T^2 \mathrm{KL}(p_T(x'; \theta_{k-1}) \Vert p_T(x; \theta_{k})), \quad x', x "
        r"\text{ two augmentations of one sample, } k \text{ the step}",
        use="Self-distillation without a teacher and without a second forward pass, for "
        "predictions that are consistent from step to step. The paper also shows it under label "
        "noise. It stores the logits of one step.",
        pitfalls="With an ordinary shuffled loader hardly any sample returns in the next step, and "
        "the loss is almost always zero, which looks like a match. It needs the samples' index. "
        "The published runs use every sample twice an epoch, so compare at equal steps, not at "
        "equal epochs. Label every sample: with few labels the student's own predictions outweigh "
        "them.",
    )
    needs: ClassVar = {"student": (("logits",),), "teacher": ()}

    def __init__(
        self,
        temperature: Annotated[Positive, Doc("softmax temperature of both steps")] = 3.0,
        size: Annotated[
            int, Ge(1), Doc("number of stored rows, at least the samples of a step")
        ] = 1024,
    ):
        super().__init__(temperature)
        self.size = size
        # -1 matches no sample, so nothing counts in the first step.
        self.register_buffer("owner", torch.full((size,), -1))
        self.owner: Tensor
        self.before: Tensor
        self.counted: Tensor

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """Create the buffers of a step's logits, empty so that the first step counts no item.

        Raises:
            ValueError: for logits of tokens, whose number differs from batch to batch.
        """
        logits: Tensor = student["logits"]
        if logits.ndim == TOKEN_DIMS:
            raise ValueError(
                "DLB stores the logits of one step, and rows of tokens have another length in the "
                "next one. Expected logits (N, C) or (N, H, W, C), got "
                f"{tuple(logits.shape)}. Use kd with a teacher"
            )
        self.owner = self.owner.to(logits.device)
        self.register_buffer("before", to_float32(logits).new_zeros(self.size, *logits.shape[1:]))
        counted_shape = (self.size, *logits.shape[1:-1])
        counted = torch.zeros(counted_shape, dtype=torch.bool, device=logits.device)
        self.register_buffer("counted", counted)

    def find(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Match the samples of a batch with the rows of the previous step.

        Args:
            batch: batch with ``index`` (N,).

        Returns:
            Row of each sample (N,), and whether the previous step had the sample (N,).

        Raises:
            ValueError: if the batch has no ``index``.
        """
        if "index" not in batch:
            name = type(self).__name__
            raise ValueError(
                f"{name} needs 'index' in the batch, which has {', '.join(batch)}. "
                "Return it from the data set."
            )
        # Compared as tensors: a dictionary would need the indices on the host.
        same = batch["index"][:, None] == self.owner
        # argmax is 0 for a sample without a row; the mask excludes it.
        return same.int().argmax(1), same.any(1)

    def weight(self, batch: Batch) -> Tensor:
        row, was_seen = self.find(batch)
        weight = super().weight(batch)
        counted = self.counted[row]
        if counted.ndim > weight.ndim:
            counted = counted.flatten(1).any(1)
        return weight * counted * was_seen.view(-1, *[1] * (weight.ndim - 1))

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        return super().forward(student, {"logits": self.before[self.find(batch)[0]]}, batch)

    def soft_targets(self, teacher: Outputs, batch: Batch, num_classes: int) -> Tensor:
        """Raise ValueError: the targets change from step to step."""
        raise ValueError("its targets are the student's outputs in the previous step. Use kd")

    def state_updates(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        logits = student["logits"]
        counts = item_weights(batch) > 0
        counts = counts.view(*counts.shape, *[1] * (logits.ndim - 1 - counts.ndim))
        counts = counts.expand(logits.shape[:-1])
        # Uncounted rows hold stand-ins that depend on the micro-batch, so they are not stored.
        logits = torch.where(counts.unsqueeze(-1), logits, 0.0)
        return {"index": batch["index"], "logits": logits, "counts": counts}

    def after_step(self, rows: dict[str, Tensor]) -> None:
        """Replace the stored logits by those of this step.

        Raises:
            ValueError: if the step has more than ``size`` samples.
        """
        if not rows:
            return
        num_samples = len(rows["index"])
        if num_samples > self.size:
            raise ValueError(
                f"size: the rows do not hold a step. Expected {num_samples} or more for a step of "
                f"{num_samples} samples, got {self.size}."
            )
        counts = rows["counts"]
        has_counts = counts.flatten(1).any(1) if counts.ndim > 1 else counts
        self.owner.fill_(-1)
        self.owner[:num_samples] = torch.where(has_counts, rows["index"], -1)
        self.counted[:num_samples] = counts
        self.before[:num_samples] = rows["logits"].to(self.before.dtype)
