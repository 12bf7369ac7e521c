"""Test whether the logits of an encoder-decoder are a ``Projection``."""

from __future__ import annotations

import warnings
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from instil.core import side_effect_free
from instil.roles import Projection
from instil.tasks.bases.causal_head import PROBE_TOKENS, close, head_state, synthetic_logits
from instil.tasks.bases.encoder_decoder_parts import decoded, encoded
from instil.tasks.bases.linear_head import LinearHead, linear_head

SCALES = "_instil_encoder_decoder_scales"
"""Attribute of a model that keeps the result of the test for each state of its head."""


def encoder_decoder_head(model: Any) -> LinearHead | None:
    """Return the output head of an encoder-decoder, with the bias that some models add after it.

    Args:
        model: model with ``get_output_embeddings``.
    """
    head = linear_head(model.get_output_embeddings())
    bias = getattr(model, "final_logits_bias", None)
    if head is None or not isinstance(bias, Tensor):
        return head
    return None if head.bias is not None else head._replace(bias=bias.flatten())


def project(model: Any, state: Tensor, scale: float) -> Projection:
    """Return the logits of states of the decoder as a projection.

    Args:
        model: model with ``get_output_embeddings``.
        state: last hidden states (..., H) of the decoder.
        scale: factor of the states before the head.
    """
    head = encoder_decoder_head(model)
    assert head is not None
    # The factor belongs to the input of the head: a bias is not scaled.
    return head.project(state if scale == 1 else state * scale)


def head_scale(model: Any, inputs: dict[str, Tensor], decoder_ids: Tensor) -> float | None:
    """Test whether head and decoder give the model's logits, once for each state of the head.

    Args:
        model: model with ``get_encoder``, ``get_decoder`` and ``get_output_embeddings``.
        inputs: inputs of the encoder, on the model's device; two rows are used.
        decoder_ids: tokens of the decoder (N, L).

    Returns:
        Factor of the decoder's states before the head. None if the model's own logits must be
        used; a warning names the class of the model.
    """
    state = head_state(model.get_output_embeddings())
    if not hasattr(model, SCALES):
        setattr(model, SCALES, {})
    scales: dict[Any, float | None] = getattr(model, SCALES)
    if state not in scales:
        probe = {key: value[:2] for key, value in inputs.items()}
        scales[state] = _tested_scale(model, probe, decoder_ids[:2, :PROBE_TOKENS])
        if scales[state] is None:
            warnings.warn(
                f"{type(model).__name__}: its logits are not a matrix product of its decoder's "
                "last state, so its own logits are used. Losses keep all logits in memory (tokens "
                "x vocabulary)",
                stacklevel=2,
            )
    return scales[state]


def _tested_scale(model: Any, inputs: dict[str, Tensor], decoder_ids: Tensor) -> float | None:
    """Compare the input of the head with the state of the decoder, and its output with logits."""
    linear = encoder_decoder_head(model)
    if linear is None or model.get_encoder() is None or model.get_decoder() is None:
        return None
    calls: list[tuple[Tensor, Tensor]] = []

    # Initial weights give logits so small that a later bias or a soft cap would stay unseen.
    def replace_logits(_module: nn.Module, args: Any, output: Tensor) -> Tensor:
        calls.append((args[0], output))
        return synthetic_logits(output)

    with side_effect_free(model), ExitStack() as hooks:
        head = model.get_output_embeddings()
        hooks.callback(head.register_forward_hook(replace_logits).remove)
        logits = model(**inputs, decoder_input_ids=decoder_ids)["logits"]
        memory = encoded(model, inputs)
        outputs = decoded(model, memory, decoder_ids)
        if len(calls) != 1 or "last_hidden_state" not in outputs:
            return None
    head_input, head_output = calls[0]
    bias = getattr(model, "final_logits_bias", torch.zeros(1, device=logits.device))
    if not close(synthetic_logits(head_output) + bias, logits):
        return None
    if not close(linear.project(head_input).logits(), head_output + bias):
        return None
    width = head_input.shape[-1]
    for scale in (1.0, width**-0.5):
        if close(outputs["last_hidden_state"] * scale, head_input):
            return scale
    return None
