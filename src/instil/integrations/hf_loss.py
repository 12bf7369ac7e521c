"""Distillation loss in the place of the model of a transformers ``Trainer``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import TrainerCallback

from instil.integrations.distillation_loss import DistillationLoss

ADAPTERS = "adapters.safetensors"
"""File of a checkpoint with the adapters and memories of the objectives."""


class HuggingFaceLoss(DistillationLoss):
    """Loss with the attributes of a student that ``Trainer`` reads."""

    @property
    def config(self) -> Any:
        """Configuration of the student."""
        return self.student.config

    @property
    def activation_checkpointing_enable(self) -> Any:
        """Function of the student."""
        return self.student.activation_checkpointing_enable

    @property
    def get_input_embeddings(self) -> Any:
        """Function of the student."""
        return self.student.get_input_embeddings

    @property
    def gradient_checkpointing_enable(self) -> Any:
        """Function of the student."""
        return self.student.gradient_checkpointing_enable

    def save_adapters(self, folder: Path) -> None:
        """Write the state without the student, if there is one."""
        adapters = {
            name: value.contiguous()
            for name, value in self.state_dict().items()
            if not name.startswith("scheme.student.")
        }
        if adapters:
            save_file(adapters, folder / ADAPTERS)

    def load_adapters(self, folder: Path) -> None:
        """Read what ``save_adapters`` wrote."""
        if (folder / ADAPTERS).exists():
            self.load_state_dict(load_file(folder / ADAPTERS), strict=False)


class AfterStep(TrainerCallback):
    """Updates memories of the objectives after each optimizer step."""

    def __init__(self, distillation: DistillationLoss) -> None:
        self.distillation = distillation

    def on_optimizer_step(self, *args: Any, **options: Any) -> None:
        """Update the memories."""
        self.distillation.after_step()


class LossMeans:
    """Means of the losses since the last log; sums, since a list would grow without end."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._count = 0

    def add(self, losses: dict[str, Tensor]) -> None:
        """Add the losses of a batch."""
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, 0) + value
        self._count += 1

    def take(self) -> dict[str, float]:
        """Return the means by name, and start again."""
        means = {f"loss_{name}": total.item() / self._count for name, total in self._sums.items()}
        self._sums = {}
        self._count = 0
        return means
