"""Encoder and decoder of a model, run one after the other."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from instil.core import Batch

ENCODER_INPUTS = ("input_ids", "input_features", "input_values", "pixel_values")
"""Keys of a batch that may be the input of an encoder."""
MASK = "encoder_attention_mask"
"""Key of the mask of the encoder's input. Objectives read ``attention_mask`` as that of tokens."""


class Memory(NamedTuple):
    """Outputs of an encoder.

    Attributes:
        outputs: ``last_hidden_state`` (N, S, D) and the outputs of the layers.
        mask: (N, S), 0 for padding; None where the decoder reads all states.
    """

    outputs: Mapping[str, Any]
    mask: Tensor | None


def encoder_inputs(model: Any, batch: Batch) -> dict[str, Tensor]:
    """Return the entries of a batch that the encoder of a model reads.

    Args:
        model: the encoder-decoder.
        batch: the batch.

    Raises:
        ValueError: if the batch has no input of an encoder.
    """
    inputs = {key: batch[key] for key in ENCODER_INPUTS if key in batch}
    if not inputs:
        raise ValueError(
            f"batch: no input of an encoder. Expected one of {', '.join(ENCODER_INPUTS)}, got "
            f"{', '.join(batch)}"
        )
    mask = batch.get(MASK)
    if mask is not None and "attention_mask" in inspect.signature(model.forward).parameters:
        inputs["attention_mask"] = mask
    return inputs


def encoded(
    model: Any, inputs: Mapping[str, Tensor], options: Mapping[str, Any] | None = None
) -> Memory:
    """Run the encoder of a model.

    Args:
        model: model with ``get_encoder``.
        inputs: inputs of the encoder.
        options: further arguments of the encoder.
    """
    outputs = model.get_encoder()(**inputs, **(options or {}))
    mask = outputs.get("attention_mask", inputs.get("attention_mask"))
    # A mask of frames or pixels does not fit the states of an encoder with a stride.
    if mask is not None and mask.shape != outputs["last_hidden_state"].shape[:2]:
        mask = None
    return Memory(outputs, mask)


def decoded(
    model: Any, memory: Memory, ids: Tensor, options: Mapping[str, Any] | None = None
) -> Mapping[str, Any]:
    """Run the decoder of a model.

    Args:
        model: model with ``get_decoder``.
        memory: outputs of the encoder.
        ids: tokens (N, L), the start token first.
        options: further arguments of the decoder.

    Returns:
        ``last_hidden_state`` (N, L, D) and the outputs of the layers.
    """
    decoder = model.get_decoder()
    arguments: dict[str, Any] = dict(options or {})
    names = inspect.signature(decoder.forward).parameters
    if memory.mask is not None and "encoder_attention_mask" in names:
        arguments["encoder_attention_mask"] = memory.mask
    if "use_cache" in names:
        arguments["use_cache"] = False
    state = memory.outputs["last_hidden_state"]
    result: Mapping[str, Any] = decoder(input_ids=ids, encoder_hidden_states=state, **arguments)
    return result
