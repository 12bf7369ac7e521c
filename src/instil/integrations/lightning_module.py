"""Module of Lightning that distils a student."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import lightning
import torch
from torch import Tensor, nn

from instil.integrations.distillation_loss import DistillationLoss

OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


class DistillationModule(lightning.LightningModule):
    """``LightningModule`` whose loss is a ``DistillationLoss``.

    Devices, precision, ``DistributedDataParallel``, logging and checkpoints are those of
    ``lightning.Trainer``. Checkpoints do not contain the teacher; ``student`` is the trained
    module. Subclass it for other steps, optimizers or metrics.

    Args:
        distillation: loss with teacher, student and objectives.
        optimizer: returns an optimizer for parameters; None: AdamW with learning rate 1e-3.

    Example:
        >>> import torch
        >>> teacher = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
        >>> student = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
        >>> batch = (torch.randn(8, 3, 2, 2), torch.tensor([0, 1] * 4))
        >>> loss = DistillationLoss(teacher, student, {"kd": 1.0}, batch)
        >>> module = DistillationModule(loss)
        >>> module.student is student
        True
    """

    def __init__(
        self, distillation: DistillationLoss, optimizer: OptimizerFactory | None = None
    ) -> None:
        super().__init__()
        self.distillation = distillation
        self.optimizer_factory = optimizer

    @property
    def student(self) -> nn.Module:
        """The student."""
        return self.distillation.student

    def training_step(self, batch: Any, _batch_index: int) -> Tensor:
        """Return the loss of a batch and log each objective."""
        loss: Tensor
        loss, parts = self.distillation(batch, self.global_step, self._progress())
        self.log("loss", loss.detach(), prog_bar=True)
        self.log_dict({f"loss_{name}": value for name, value in parts.items()})
        return loss

    def optimizer_step(self, *args: Any, **options: Any) -> None:
        """Run an optimizer step and update memories of the objectives."""
        super().optimizer_step(*args, **options)
        self.distillation.after_step()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer of the student and the adapters."""
        parameters = [value for value in self.distillation.parameters() if value.requires_grad]
        if self.optimizer_factory is None:
            return torch.optim.AdamW(parameters, lr=1e-3)
        return self.optimizer_factory(parameters)

    def _progress(self) -> float:
        steps = self.trainer.estimated_stepping_batches
        return min(self.global_step / steps, 1.0)
