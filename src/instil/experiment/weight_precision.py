"""Precision of the weights of a network that is trained."""

from __future__ import annotations

import torch
from torch import nn

from instil.networks.valueless import to_float32
from instil.recipe.sections import ModelConfig, TeacherConfig

HALF = (torch.float16, torch.bfloat16)


def in_training_precision(model: nn.Module, config: ModelConfig) -> nn.Module:
    """Return a model that is trained with weights in float32, in place.

    Folders of language models have weights in bfloat16, which rounds small updates away:
    ``train.precision`` sets the precision of the computation instead. The option ``dtype`` keeps
    another type, and the frozen weights below LoRA adapters keep theirs.

    Args:
        model: model as its source built it.
        config: section of the network.

    Raises:
        ValueError: for quantised weights that would be trained.
    """
    is_trained_here = not (isinstance(config, TeacherConfig) and config.ready)
    if not is_trained_here or "lora" in config.changes:
        return model
    if getattr(model, "quantization_method", None) is not None:
        raise ValueError(
            "options.quantization_config: quantised weights cannot be trained. Expected adapters "
            "on them. Set changes.lora, or leave quantization_config out"
        )
    if "dtype" in config.options or not hasattr(model, "save_pretrained"):
        return model
    has_half = any(parameter.dtype in HALF for parameter in model.parameters())
    return to_float32(model) if has_half else model
