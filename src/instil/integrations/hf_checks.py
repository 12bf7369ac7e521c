"""Checks of the arguments of ``DistillationTrainer``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer
from transformers import PreTrainedTokenizerBase, Trainer


def check_modules(name: str, models: Sequence[Any]) -> None:
    """Check that models are modules, and not the names of models.

    Args:
        name: name of the argument.
        models: the models.

    Raises:
        ValueError: if a model is not a module.
    """
    for model in models:
        if not isinstance(model, nn.Module):
            raise ValueError(
                f"{name}: Expected a module, got {type(model).__name__}. Load a model with "
                "from_pretrained"
            )


def check_arguments(trainer: Trainer) -> None:
    """Check that the loss and the processes of a trainer are those of a distillation.

    Args:
        trainer: the trainer.

    Raises:
        ValueError: for sharding, another loss, and missing training data.
    """
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        raise ValueError(
            "args: FSDP and DeepSpeed are not supported here. Expected one process or "
            "DistributedDataParallel. `instil run` with train.shard shards teacher and student"
        )
    if trainer.args.label_smoothing_factor:
        raise ValueError(
            "args.label_smoothing_factor: the loss is that of the objectives. Expected 0, got "
            f"{trainer.args.label_smoothing_factor}. Use the objective label_smoothing"
        )
    if trainer.compute_loss_func is not None:
        raise ValueError(
            "compute_loss_func: the loss is that of the objectives. Expected None. Pass an "
            "objective of your own in objectives"
        )
    if trainer.train_dataset is None:
        raise ValueError("train_dataset: is missing. Its first batch shapes the adapters")


def check_optimizer(optimizer: Optimizer | None, objectives: nn.Module) -> None:
    """Check that an optimizer of the caller trains the adapters.

    Args:
        optimizer: the optimizer; None if the trainer creates it.
        objectives: objectives with their adapters.

    Raises:
        ValueError: for an adapter that is not trained.
    """
    if optimizer is None:
        return
    trained: set[int] = set()
    for group in optimizer.param_groups:
        trained.update(map(id, group["params"]))
    for name, parameter in objectives.named_parameters():
        if parameter.requires_grad and id(parameter) not in trained:
            raise ValueError(
                f"optimizers: does not train the adapters of the objectives, such as {name}. "
                "Expected an optimizer that the trainer creates. Use optimizer_cls_and_kwargs, "
                "or optim in the arguments"
            )


def num_tokens(processing_class: Any) -> int | None:
    """Return the number of tokens of a tokenizer, or of the tokenizer of a processor.

    Args:
        processing_class: tokenizer or processor of a trainer; other values have no tokens.
    """
    tokenizer = getattr(processing_class, "tokenizer", processing_class)
    return len(tokenizer) if isinstance(tokenizer, PreTrainedTokenizerBase) else None
