"""Trainer of transformers that distils a student."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    set_seed,
)

from instil.integrations.distillation_loss import DistillationLoss
from instil.offline_scheme import ObjectiveSpecs

ADAPTERS = "adapters.safetensors"
"""File of a checkpoint with the adapters and memories of the objectives."""


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
        _check_modules("model", [model])
        _check_modules("teacher", teachers)
        super().__init__(model=model, **options)
        self._check_args()
        # The columns that batches keep are the arguments of the student.
        self._set_signature_columns_if_needed()
        example = self._prepare_inputs(next(iter(self.get_train_dataloader())))
        for module in teachers:
            module.to(self.args.device)
        self.student = model
        set_seed(self.args.seed)  # the loader above has drawn numbers
        self.distillation = _HuggingFaceLoss(
            teachers[0] if len(teachers) == 1 else teachers,
            model,
            objectives,
            dict(example),
            task=task,
            seed=self.args.seed,
            num_tokens=_num_tokens(self.processing_class),
        )
        self._check_optimizer()
        # ``train`` wraps and trains this module, so that adapters are trained and synchronized too.
        self.model = self.model_wrapped = self.distillation
        self.model_accepts_loss_kwargs = False
        # Sums instead of a list, which would grow without end where nothing is logged.
        self._sums: dict[str, Tensor] = {}
        self._num_losses = 0
        self.add_callback(_AfterStep(self.distillation))

    def _check_args(self) -> None:
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise ValueError(
                "args: FSDP and DeepSpeed are not supported here. Expected one process or "
                "DistributedDataParallel. `instil run` with train.shard shards teacher and student"
            )
        if self.args.label_smoothing_factor:
            raise ValueError(
                "args.label_smoothing_factor: the loss is that of the objectives. Expected 0, got "
                f"{self.args.label_smoothing_factor}. Use the objective label_smoothing"
            )
        if self.compute_loss_func is not None:
            raise ValueError(
                "compute_loss_func: the loss is that of the objectives. Expected None. Pass an "
                "objective of your own in objectives"
            )
        if self.train_dataset is None:
            raise ValueError("train_dataset: is missing. Its first batch shapes the adapters")

    def _check_optimizer(self) -> None:
        """Raise ValueError for an optimizer that does not train the adapters."""
        if self.optimizer is None:
            return
        trained: set[int] = set()
        for group in self.optimizer.param_groups:
            trained.update(map(id, group["params"]))
        for name, parameter in self.distillation.scheme.objectives.named_parameters():
            if parameter.requires_grad and id(parameter) not in trained:
                raise ValueError(
                    f"optimizers: does not train the adapters of the objectives, such as {name}. "
                    "Expected an optimizer that the trainer creates. Use optimizer_cls_and_kwargs, "
                    "or optim in the arguments"
                )

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
        for name, value in parts.items():
            self._sums[name] = self._sums.get(name, 0) + value
        self._num_losses += 1
        return (loss, parts) if return_outputs else loss

    def prediction_step(self, model: nn.Module, *args: Any, **options: Any) -> Any:
        """Evaluate the student on a batch."""
        return super().prediction_step(self.student, *args, **options)

    def log(self, logs: dict[str, float], *args: Any, **options: Any) -> None:
        """Log ``logs`` with the mean of each objective since the last training log."""
        if "loss" in logs:
            for name, total in self._sums.items():
                logs[f"loss_{name}"] = total.item() / self._num_losses
            self._sums = {}
            self._num_losses = 0
        super().log(logs, *args, **options)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Write the student, and a file with the adapters."""
        trained = self.model
        self.model = self.student
        try:
            super()._save(output_dir, None)
        finally:
            self.model = trained
        adapters = self.distillation.adapter_state()
        if adapters and self.args.should_save:
            folder = output_dir or self.args.output_dir or "."
            save_file(adapters, Path(folder) / ADAPTERS)

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: nn.Module | None = None
    ) -> None:
        """Load the student and the adapters."""
        trained = self.model
        self.model = self.student
        try:
            super()._load_from_checkpoint(resume_from_checkpoint, self.student)
        finally:
            self.model = trained
        path = Path(resume_from_checkpoint) / ADAPTERS
        if path.exists():
            self.distillation.load_state_dict(load_file(path), strict=False)

    def _load_best_model(self) -> None:
        assert self.state.best_model_checkpoint is not None
        self._load_from_checkpoint(self.state.best_model_checkpoint)


def _check_modules(name: str, models: Sequence[Any]) -> None:
    """Raise ValueError for a model that is not a module, such as the name of one."""
    for model in models:
        if not isinstance(model, nn.Module):
            raise ValueError(
                f"{name}: Expected a module, got {type(model).__name__}. Load a model with "
                "from_pretrained"
            )


def _num_tokens(processing_class: Any) -> int | None:
    """Number of tokens of a tokenizer, or of the tokenizer of a processor; None without one."""
    tokenizer = getattr(processing_class, "tokenizer", processing_class)
    return len(tokenizer) if isinstance(tokenizer, PreTrainedTokenizerBase) else None


class _HuggingFaceLoss(DistillationLoss):
    """Loss with the attributes of a student that ``Trainer`` reads."""

    @property
    def config(self) -> Any:
        return self.student.config

    @property
    def activation_checkpointing_enable(self) -> Any:
        return self.student.activation_checkpointing_enable

    @property
    def get_input_embeddings(self) -> Any:
        return self.student.get_input_embeddings

    @property
    def gradient_checkpointing_enable(self) -> Any:
        return self.student.gradient_checkpointing_enable

    def adapter_state(self) -> dict[str, Tensor]:
        """State without the student."""
        state = self.state_dict()
        return {
            name: value.contiguous()
            for name, value in state.items()
            if not name.startswith("scheme.student.")
        }


class _AfterStep(TrainerCallback):
    """Updates memories of the objectives after each optimizer step."""

    def __init__(self, distillation: DistillationLoss) -> None:
        self.distillation = distillation

    def on_optimizer_step(self, *args: Any, **options: Any) -> None:
        self.distillation.after_step()
