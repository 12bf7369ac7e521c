"""Export of a language model as one GGUF file for llama.cpp, checked against the model."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from torch import nn

from instil.cards.closest import did_you_mean
from instil.core import Batch, Net
from instil.export.gguf_tokenizer import add_tokenizer
from instil.export.gguf_weights import add_config, check_model, iter_weights
from instil.export.transformers import TOLERANCE, logit_difference, to_standard_model
from instil.files.atomic import atomic
from instil.networks.gguf import MISSING, gguf, reset_buffers

ROUNDING = {"f32": 0.0, "f16": 5e-4, "q8_0": 5e-3, "q4_0": 0.13}
"""Types of weights, and the largest rounding error of each as a share of the largest weight."""
SHIFT_ERROR = 1e-6
"""Largest rounding error of a scale that is stored plus one."""
BLOCK_SIZE = 32
"""Number of adjacent weights in a row that q8_0 and q4_0 round with one scale."""


def to_gguf(
    net: Net, batch: Batch, path: str | Path, tokenizer: Any, weight_type: str = "f16"
) -> dict[str, Any]:
    """Write a student of a family of llama.cpp with its tokenizer: see ``FAMILIES``.

    An older file is replaced only by a complete and correct one.

    Args:
        net: student; it is not changed.
        batch: rows of tokens on which the file is compared with the student.
        path: file to write.
        tokenizer: tokenizer of the student, one of the library ``tokenizers``.
        weight_type: ``f32``, ``f16``, ``q8_0`` or ``q4_0`` (with embeddings and head in ``q8_0``).
            Weights of normalisation layers are float32.

    Returns:
        ``file``, ``bytes``, ``max_difference`` (of the logits of ``batch``) and ``model``, the
        model that the file holds.

    Raises:
        ValueError: for a model or tokenizer that GGUF or llama.cpp does not support, if the file
            holds another model, and without the packages ``gguf`` and ``transformers``.
    """
    check_weight_type(weight_type)
    model = to_standard_model(net.model).cpu().float()
    path = Path(path)
    with atomic(path) as temporary:
        _write(model, tokenizer, temporary, weight_type)
        reloaded = gguf(str(temporary.absolute()))
        _check_rounding(model, reloaded, weight_type)
        # With the rounded weights both models must agree, so a difference is an error of the file.
        model.load_state_dict(reloaded.state_dict())
        # A cast of the model may have rounded its rotary angles, which are not weights.
        reset_buffers(model)
        exported = Net(reloaded, net.call)
        logit_difference(Net(model, net.call), exported, batch, TOLERANCE, path)
        # The remaining difference from the student is the price of rounding.
        difference = logit_difference(net, exported, batch, math.inf, path)
    return {
        "file": path.name,
        "bytes": path.stat().st_size,
        "max_difference": difference,
        "model": reloaded,
    }


def check_weight_type(weight_type: str) -> None:
    """Check the name of a type of weights.

    Raises:
        ValueError: for an unknown type, with the closest one.
    """
    if weight_type not in ROUNDING:
        raise ValueError(
            f"gguf: unknown weight type '{weight_type}'. Expected one of {', '.join(ROUNDING)}."
            f"{did_you_mean(weight_type, ROUNDING)}"
        )


def _write(model: Any, tokenizer: Any, path: Path, weight_type: str) -> None:
    try:
        from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType, quantize
    except ImportError as error:
        raise ValueError(MISSING.format(error.name)) from error
    family = check_model(model)
    writer = GGUFWriter(path, family.model_type)
    file_type = "ALL_F32" if weight_type == "f32" else f"MOSTLY_{weight_type.upper()}"
    writer.add_file_type(LlamaFileType[file_type])
    add_config(writer, model, family)
    add_tokenizer(writer, tokenizer, model.config)
    for name, weight in iter_weights(model, family):
        kind = GGMLQuantizationType[_type_of(name, weight.ndim, weight_type)]
        if kind.name.startswith("Q") and weight.shape[1] % BLOCK_SIZE:
            raise ValueError(
                f"gguf: {weight_type} rounds blocks of {BLOCK_SIZE} weights. Expected rows of a "
                f"multiple of {BLOCK_SIZE} weights, got {weight.shape[1]} in {name}. Use f16"
            )
        writer.add_tensor(name, quantize(weight.contiguous().numpy(), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _type_of(name: str, ndim: int, weight_type: str) -> str:
    """Type of one tensor: vectors are float32, embeddings and head have at least 8 bits."""
    if ndim == 1:
        return "F32"
    if weight_type == "q4_0" and not name.startswith("blk"):
        return "Q8_0"
    return weight_type.upper()


def _check_rounding(model: nn.Module, reloaded: nn.Module, weight_type: str) -> None:
    """Check that the weights in the file are those of the model, rounded to the type."""
    written = reloaded.state_dict()
    for name, weight in model.state_dict().items():
        error = (written[name] - weight).abs().max()
        largest = weight.abs().max()
        # The negated comparison is also true for NaN.
        if not error <= ROUNDING[weight_type] * largest + SHIFT_ERROR:
            raise ValueError(
                f"gguf: wrong weights in the {weight_type} file. Expected {name} within "
                f"{ROUNDING[weight_type]:g} of its largest weight {largest:.2g}, got an error of "
                f"{error:.2g}. Use f32"
            )
