"""Trainer of transformers that distils a student."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel, Trainer, set_seed

from instil.integrations.distillation_loss import DistillationLoss
from instil.integrations.hf_checks import (
    check_arguments,
    check_modules,
    check_optimizer,
    num_tokens,
)
from instil.integrations.hf_loss import AfterStep, HuggingFaceLoss, LossMeans
from instil.offline_scheme import ObjectiveSpecs


class DistillationTrainer(Trainer):
    """``Trainer`` whose loss is that of a teacher and objectives.

    Checkpoints and ``save_model`` write the student with ``save_pretrained``. ``evaluate`` returns
    the student's own loss and metrics. The logs contain every objective. Devices, mixed precision,
    ``DistributedDataParallel``, schedulers and callbacks are those of ``Trainer``; sharding is not
    supported.

    Heads of student and teacher may be padded to different sizes if ``processing_class`` is their
    tokenizer: losses that compare tokens then read the tokens of the tokenizer only.

    Args:
        model: the student.
        teacher: module on any device, or several modules, whose logits are averaged.
        objectives: as in ``instil.distil``, which also has the default.
        task: name of the task, such as ``"language"`` or ``"classification"``.
        **options: further arguments of ``Trainer``. ``train_dataset`` is required.

    Raises:
        ValueError: for unknown names, wrong options, sharding, and outputs that an objective cannot
            read.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        teacher: nn.Module | Sequence[nn.Module],
        objectives: ObjectiveSpecs | None = None,
        *,
        task: str = "language",
        **options: Any,
    ) -> None:
        teachers = [teacher] if isinstance(teacher, (nn.Module, str)) else list(teacher)
        check_modules("model", [model])
        check_modules("teacher", teachers)
        super().__init__(model=model, **options)
        check_arguments(self)
        # The columns that batches keep are the arguments of the student.
        self._set_signature_columns_if_needed()
        example = self._prepare_inputs(next(iter(self.get_train_dataloader())))
        for module in teachers:
            module.to(self.args.device)
        self.student = model
        set_seed(self.args.seed)  # the loader above has drawn numbers
        self.distillation = HuggingFaceLoss(
            teachers[0] if len(teachers) == 1 else teachers,
            model,
            objectives,
            dict(example),
            task=task,
            seed=self.args.seed,
            num_tokens=num_tokens(self.processing_class),
        )
        check_optimizer(self.optimizer, self.distillation.scheme.objectives)
        # ``train`` wraps and trains this module, so that adapters are trained and synchronized too.
        self.model = self.model_wrapped = self.distillation
        self.model_accepts_loss_kwargs = False
        self._losses = LossMeans()
        self.add_callback(AfterStep(self.distillation))

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Return the distillation loss of a batch; in evaluation, the student's own loss."""
        if not isinstance(self.accelerator.unwrap_model(model), DistillationLoss):
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        step = self.state.global_step
        loss, parts = model(dict(inputs), step, step / max(self.state.max_steps, 1))
        self._losses.add(parts)
        return (loss, parts) if return_outputs else loss

    def prediction_step(self, model: nn.Module, *args: Any, **options: Any) -> Any:
        """Evaluate the student on a batch."""
        return super().prediction_step(self.student, *args, **options)

    def log(self, logs: dict[str, float], *args: Any, **options: Any) -> None:
        """Log ``logs`` with the mean of each objective since the last training log."""
        if "loss" in logs:
            logs |= self._losses.take()
        super().log(logs, *args, **options)

    @contextlib.contextmanager
    def _student_as_model(self) -> Iterator[None]:
        """Replace the trained module, whose checkpoints are not those of a model."""
        trained, self.model = self.model, self.student
        try:
            yield
        finally:
            self.model = trained

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Write the student, and a file with the adapters."""
        with self._student_as_model():
            super()._save(output_dir, None)
        if self.args.should_save:
            self.distillation.save_adapters(Path(output_dir or self.args.output_dir or "."))

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: nn.Module | None = None
    ) -> None:
        """Load the student and the adapters."""
        with self._student_as_model():
            super()._load_from_checkpoint(resume_from_checkpoint, self.student)
        self.distillation.load_adapters(Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        assert self.state.best_model_checkpoint is not None
        self._load_from_checkpoint(self.state.best_model_checkpoint)
