"""Outputs of encoder-decoders: teacher-forced logits, states of both parts, found sequences."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from instil.core import Batch, Outputs
from instil.generation.sequences import shift_right, special_tokens
from instil.roles import LazyOutputs
from instil.students.adapted_model import without_wrapper
from instil.tasks.bases.causal_model import projected
from instil.tasks.bases.encoder_decoder_head import head_scale, project
from instil.tasks.bases.encoder_decoder_parts import Memory, decoded, encoded, encoder_inputs
from instil.tasks.bases.sequence_search import DeferredSearch
from instil.tasks.bases.token_chunks import predicted

LAYER_ROLES = {
    "encoder_hidden_states": "hidden_states",
    "encoder_attentions": "attentions",
    "decoder_hidden_states": "hidden_states",
    "decoder_attentions": "attentions",
    "cross_attentions": "cross_attentions",
}
"""Role -> output of the encoder or decoder."""
SAME_ROLES = {"hidden_states": "decoder_hidden_states", "attentions": "decoder_attentions"}
"""Role of a model with one part -> role of an encoder-decoder with the same meaning."""


def call(model: nn.Module, batch: Batch, roles: Collection[str] | None = None) -> Outputs:
    """Compute outputs of an encoder-decoder; position t of ``logits`` predicts token t of label.

    The inputs of the decoder are the labels shifted to the right by one, with the special tokens
    of the model, unless the batch has ``decoder_input_ids``. The head of each model is tested on
    its first batch: if a matrix product of the decoder's last state gives the model's logits, the
    role ``projection`` holds both factors, and ``logits`` are computed when they are read.

    Args:
        model: an encoder-decoder of transformers, the network ``encoder_decoder``, or any module
            that maps an input of the encoder and ``decoder_input_ids`` to logits.
        batch: one of ``input_ids``, ``input_features``, ``input_values`` and ``pixel_values``,
            optionally ``encoder_attention_mask``, and ``label`` or ``decoder_input_ids`` (N, L).
            ``sequence_search`` has the options of the roles ``sequence`` and ``candidates``.
        roles: roles that will be read; None stands for all. Outputs of all layers are computed
            only for roles of layers.

    Returns:
        ``projection`` or ``logits`` (N, L, V), ``prediction`` (N, L), ``embedding`` (N, L, H),
        ``encoder_hidden_states``, ``decoder_hidden_states`` and, if the model computes them,
        ``encoder_attentions``, ``decoder_attentions`` and ``cross_attentions``; ``hidden_states``
        and ``attentions`` are those of the decoder. ``sequence`` (N, L) is the most likely sequence
        by ``sequence_search``, computed when it is read, and ``candidates`` (N, beams, L) are all
        hypotheses.
    """
    bare = without_wrapper(model)
    inputs = encoder_inputs(bare, batch)
    ids = _decoder_ids(bare, batch, inputs)
    if not hasattr(bare, "get_encoder"):
        return _plain_outputs(bare, inputs, ids, batch)
    scale = head_scale(bare, inputs, ids)
    memory = encoded(bare, inputs, _layer_options(bare, roles))
    if scale is None:
        outputs = _own_outputs(bare, inputs, memory, ids, roles)
    else:
        outputs = _projected_outputs(bare, memory, ids, scale, roles)
    searched = DeferredSearch(bare, inputs, memory, batch, scale)
    return outputs | LazyOutputs({}, {"candidates": searched, "sequence": lambda: searched()[:, 0]})


def _decoder_ids(model: Any, batch: Batch, inputs: Mapping[str, Tensor]) -> Tensor:
    """Inputs of the decoder; the start token alone for a batch without labels."""
    if "decoder_input_ids" in batch:
        ids: Tensor = batch["decoder_input_ids"]
        return ids
    tokens = special_tokens(model)
    if "label" in batch:
        return shift_right(batch["label"], tokens)
    first = next(iter(inputs.values()))
    return torch.full((len(first), 1), tokens.start, device=first.device)


def _layer_options(model: Any, roles: Collection[str] | None) -> dict[str, Any]:
    """Arguments that make a model of transformers return the outputs of its layers."""
    config = getattr(model, "config", None)
    if not hasattr(config, "model_type"):
        return {}
    read = {SAME_ROLES.get(role, role) for role in (LAYER_ROLES if roles is None else roles)}
    options = {}
    if any("hidden_states" in role for role in read & set(LAYER_ROLES)):
        options["output_hidden_states"] = True
    # Only the eager implementation computes attention probabilities.
    is_eager = getattr(config, "_attn_implementation", "") == "eager"
    if is_eager and any("attentions" in role for role in read):
        options["output_attentions"] = True
    return options


def _layers(encoder: Mapping[str, Any], decoder: Mapping[str, Any]) -> Outputs:
    """Outputs of the layers of both parts by role, as far as there are any."""
    outputs: Outputs = {}
    for role, name in LAYER_ROLES.items():
        part = encoder if role.startswith("encoder") else decoder
        value = part.get(name)
        if value is not None and len(value) and value[0] is not None:
            outputs[role] = tuple(value)
    same = {role: outputs[other] for role, other in SAME_ROLES.items() if other in outputs}
    return outputs | same


def _projected_outputs(
    model: Any, memory: Memory, ids: Tensor, scale: float, roles: Collection[str] | None
) -> Outputs:
    """Outputs of a model whose logits are a projection of the decoder's last state."""
    decoder = decoded(model, memory, ids, _layer_options(model, roles))
    projection = project(model, decoder["last_hidden_state"], scale)
    grad = torch.is_grad_enabled()
    later: dict[str, Callable[[], Any]] = {
        "logits": lambda: projected(projection, grad),
        "prediction": lambda: predicted(projection),
        "embedding": lambda: projection.hidden,
    }
    return LazyOutputs({"projection": projection, **_layers(memory.outputs, decoder)}, later)


def _own_outputs(
    model: Any,
    inputs: dict[str, Tensor],
    memory: Memory,
    ids: Tensor,
    roles: Collection[str] | None,
) -> Outputs:
    """Outputs of a model whose own logits are used."""
    options = _layer_options(model, roles)
    outputs = model(**inputs, decoder_input_ids=ids, **options)
    decoder = {
        "hidden_states": outputs.get("decoder_hidden_states"),
        "attentions": outputs.get("decoder_attentions"),
        "cross_attentions": outputs.get("cross_attentions"),
    }
    logits = outputs["logits"]
    return LazyOutputs(
        {"logits": logits, **_layers(memory.outputs, decoder)},
        {"prediction": lambda: logits.argmax(-1)},
    )


def _plain_outputs(
    model: nn.Module, inputs: dict[str, Tensor], ids: Tensor, batch: Batch
) -> Outputs:
    """Outputs of a module without a known encoder: logits, or a mapping with other roles."""
    result = model(**inputs, decoder_input_ids=ids)
    outputs = result if isinstance(result, Mapping) else {"logits": result}
    if "logits" not in outputs:
        return outputs  # type: ignore[return-value]
    searched = DeferredSearch(model, inputs, None, batch, None)
    return LazyOutputs(
        outputs,
        {
            "prediction": lambda: outputs["logits"].argmax(-1),
            "candidates": searched,
            "sequence": lambda: searched()[:, 0],
        },
    )
