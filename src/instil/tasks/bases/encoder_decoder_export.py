"""Encoder and one step of the decoder of an encoder-decoder as two graphs."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from instil.core import Batch, Net, Outputs, side_effect_free
from instil.generation.sequences import shift_right, special_tokens
from instil.tasks.bases.encoder_decoder_head import head_scale, project
from instil.tasks.bases.encoder_decoder_parts import (
    ENCODER_INPUTS,
    MASK,
    Memory,
    decoded,
    encoded,
    encoder_inputs,
)
from instil.tasks.bases.exported_part import ExportedPart

STATE = "encoder_state"
"""Name of the encoder's last hidden state in the graphs."""


def encoder_call(model: nn.Module, batch: Batch) -> Outputs:
    """Return the last hidden state (N, S, D) of the encoder as ``encoder_state``."""
    memory = encoded(model, encoder_inputs(model, batch))
    return {STATE: memory.outputs["last_hidden_state"]}


def decoder_call(model: nn.Module, batch: Batch) -> Outputs:
    """Return ``logits`` (N, L, V) for ``decoder_input_ids`` (N, L) and ``encoder_state``."""
    memory = Memory({"last_hidden_state": batch[STATE]}, batch.get(MASK))
    ids = batch["decoder_input_ids"]
    scale = head_scale(model, {}, ids)
    assert scale is not None
    state = decoded(model, memory, ids)["last_hidden_state"]
    return {"logits": project(model, state, scale).logits()}


def encoder_decoder_graphs(net: Net, batch: Batch) -> dict[str, ExportedPart]:
    """Return the graphs ``encoder`` and ``decoder`` of a student.

    The decoder computes the logits of all positions of ``decoder_input_ids``, which have the length
    of the labels. A search pads them: logits do not depend on later tokens.

    Args:
        net: the student.
        batch: an example batch with labels.

    Raises:
        ValueError: for a model without separate encoder and decoder, or with another head.
    """
    model: Any = net.model
    if not hasattr(model, "get_encoder"):
        raise ValueError(
            f"export: {type(model).__name__} has no separate encoder. Expected an encoder-decoder "
            "with get_encoder and get_decoder"
        )
    ids = shift_right(batch["label"], special_tokens(model))
    with side_effect_free(net):
        inputs = encoder_inputs(model, batch)
        scale = head_scale(model, inputs, ids)
        memory = encoded(model, inputs)
    if scale is None:
        raise ValueError(
            f"export: the logits of {type(model).__name__} are not a matrix product of its "
            "decoder's last state, so that its decoder cannot be exported. Expected a model such "
            "as T5, BART, Marian, Whisper or encoder_decoder"
        )
    keys = tuple(key for key in (*ENCODER_INPUTS, MASK) if key in batch)
    example = {"decoder_input_ids": ids, STATE: memory.outputs["last_hidden_state"]}
    if memory.mask is not None:
        example[MASK] = torch.as_tensor(memory.mask)
    encoder = ExportedPart(Net(model, encoder_call), batch, keys, (STATE,))
    decoder = ExportedPart(Net(model, decoder_call), example, tuple(example), ("logits",))
    return {"encoder": encoder, "decoder": decoder}
