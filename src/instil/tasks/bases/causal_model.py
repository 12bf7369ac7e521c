"""Outputs of causal language models, and the checks that a model is one."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from instil.core import Batch, Outputs, side_effect_free
from instil.items.tensor_values import has_values
from instil.roles import LazyOutputs, Projection
from instil.students.adapted_model import without_wrapper
from instil.tasks.bases import causal_head, packed_rows
from instil.tasks.bases.layer_options import LAYERS, layer_options
from instil.tasks.bases.linear_head import linear_head
from instil.tasks.bases.token_chunks import predicted
from instil.tasks.bases.unpadded_inputs import unpadded_inputs, without_images

IS_CAUSAL = "_instil_is_causal"
"""Attribute of a model that passed the test of causality."""
OWN_INPUTS = frozenset({"input_ids", "attention_mask", "position_ids", "past", "labels", "label"})
"""Keys of a batch that have a treatment of their own."""


def call(model: nn.Module, batch: Batch, roles: Collection[str] | None = None) -> Outputs:
    """Compute outputs of a causal language model; position t of ``logits`` predicts token t + 1.

    The head of each model is tested on its first batch: see ``causal_head.head_rule``. If a matrix
    product of the last hidden state gives the model's logits, the role ``projection`` holds both
    factors, and ``logits`` and ``prediction`` are computed when they are read. Otherwise ``logits``
    are the model's own.

    Args:
        model: a transformers model, one of peft around it, or any module that maps ``input_ids``
            and ``attention_mask`` to logits.
        batch: ``input_ids`` and ``attention_mask`` (N, T). With the key ``past`` (None at first)
            the rows are the next tokens of texts at ``position_ids`` (N, T), and the mask covers
            all tokens so far. Further keys that the model has parameters for are passed on, such as
            ``pixel_values`` of vision-language models, also in the form of ``PADDED``.
        roles: roles that will be read; None stands for all. Outputs of all layers are computed
            only for ``hidden_states`` and ``attentions``.

    Returns:
        ``projection`` or ``logits`` (N, T, V), ``prediction`` (N, T), ``embedding`` (N, T, H) and
        ``token_embedding`` (V, E). ``head``, where logits are a matrix product with a bias and
        nothing more. ``hidden_states`` and ``attentions``, if the model returns them. With
        ``past`` in the batch, the cache as ``past`` if the model has one, and no layers.

    Raises:
        ValueError: if rows are longer than the model's context, or the model is not causal.
    """
    bare = without_wrapper(model)
    _check_length(bare, batch)
    inputs: dict[str, Any] = {"input_ids": batch["input_ids"]}
    if "attention_mask" in batch:
        inputs["attention_mask"] = batch["attention_mask"]
    inputs |= _other_inputs(bare, batch)
    if not hasattr(bare, "get_output_embeddings"):
        return _plain_outputs(model, inputs, batch)
    require_causal(bare, inputs)
    rule = causal_head.head_rule(bare, inputs)
    options = _cache_options(bare if rule is None else _body(bare), batch, roles)
    if rule is None:
        return _own_outputs(bare, inputs | options, batch, roles)
    outputs = packed_rows.forward(_body(bare), inputs | options, batch)
    head = linear_head(bare.get_output_embeddings())
    assert head is not None
    projection = head.project(outputs["last_hidden_state"], *rule)
    return _projected_outputs(bare, projection, _extra(_body(bare), outputs, batch, roles))


def projected(projection: Projection, grad: bool = True) -> Tensor:
    """Compute the logits (..., V), differentiable if ``grad`` is set and gradients are enabled."""
    with torch.set_grad_enabled(grad and torch.is_grad_enabled()):
        return projection.logits()


def _body(bare: Any) -> nn.Module:
    body = causal_head.body_of(bare)
    assert body is not None
    return body


def _other_inputs(bare: Any, batch: Batch) -> dict[str, Any]:
    """Entries of a batch for further parameters of a model, such as its images."""
    # The cache of earlier tokens holds the images, too.
    if batch.get("past") is not None:
        return {}
    names = _parameters_of(bare) - OWN_INPUTS
    inputs = {key: value for key, value in batch.items() if key in names}
    return without_images(inputs, batch) | unpadded_inputs(batch, names)


def _check_length(bare: Any, batch: Batch) -> None:
    length = batch["input_ids"].shape[1]
    context = getattr(getattr(bare, "config", None), "max_position_embeddings", None)
    if context is not None and 0 < context < length:
        raise ValueError(
            f"rows of {length} tokens are longer than the context of {type(bare).__name__}, "
            f"{context} tokens"
        )


def _plain_outputs(model: nn.Module, inputs: dict[str, Tensor], batch: Batch) -> Outputs:
    """Outputs of a module without a known head: logits, or a mapping with other roles."""
    outputs = packed_rows.forward(model, inputs, batch)
    if isinstance(outputs, Mapping) and "logits" not in outputs:
        return outputs  # type: ignore[return-value]
    if not getattr(model, IS_CAUSAL, False):
        _test_causal(model, inputs)
    logits = outputs["logits"] if isinstance(outputs, Mapping) else outputs
    return LazyOutputs({"logits": logits}, {"prediction": lambda: logits.argmax(-1)})


def _own_outputs(
    bare: Any, arguments: dict[str, Any], batch: Batch, roles: Collection[str] | None
) -> Outputs:
    """Outputs of a model whose own logits are used."""
    reads_layers = roles is None or not {*LAYERS, "embedding"}.isdisjoint(roles)
    if "past" in batch:
        # Sampling reads the last position only: the logits of a long prompt need much memory.
        if "logits_to_keep" in _parameters_of(bare):
            arguments["logits_to_keep"] = 1
    elif reads_layers:
        arguments["output_hidden_states"] = True
    outputs = packed_rows.forward(bare, arguments, batch)
    logits = outputs["logits"]
    extra = _extra(bare, outputs, batch, roles)
    tokens = bare.get_input_embeddings().weight
    later: dict[str, Callable[[], Any]] = {
        "prediction": lambda: logits.argmax(-1),
        "token_embedding": lambda: tokens.view_as(tokens),
    }
    if "past" not in batch and (states := outputs.get("hidden_states")) is not None:
        last_state = states[-1]
        later["embedding"] = lambda: last_state
    return LazyOutputs({"logits": logits, **extra}, later)


def _projected_outputs(bare: Any, projection: Projection, extra: Outputs) -> Outputs:
    """Outputs of a model whose logits are a projection; ``head`` only for a plain linear head."""
    # Roles are computed later, perhaps in another gradient mode than this one.
    grad = torch.is_grad_enabled()
    weight = projection.weight
    bias = projection.bias
    tokens = bare.get_input_embeddings().weight
    later: dict[str, Callable[[], Any]] = {
        "logits": lambda: projected(projection, grad),
        "prediction": lambda: predicted(projection),
        "embedding": lambda: projection.hidden,
        "token_embedding": lambda: tokens.view_as(tokens),
    }
    if projection.scale is None and projection.softcap is None and projection.low_rank is None:
        num_tokens = len(weight)
        later["head"] = lambda: (weight, weight.new_zeros(num_tokens) if bias is None else bias)
    return LazyOutputs({"projection": projection, **extra}, later)


def _extra(module: nn.Module, outputs: Any, batch: Batch, roles: Collection[str] | None) -> Outputs:
    """The cache with ``past`` in the batch, else the outputs of the layers."""
    if "past" in batch:
        cache = outputs.get(_cache_name(module))
        return {} if cache is None else {"past": cache}
    layers = LAYERS if roles is None else LAYERS.intersection(roles)
    return {role: outputs[role] for role in sorted(layers) if outputs.get(role) is not None}


def _cache_options(
    module: nn.Module, batch: Batch, roles: Collection[str] | None
) -> dict[str, Any]:
    """Arguments for the outputs of layers, or for the cache of earlier tokens."""
    names = _parameters_of(module)
    if "past" not in batch:
        # A cache would keep the keys and values of all layers, and a block that is computed again
        # in the backward pass would add its keys a second time.
        without_cache = {"use_cache": False} if "use_cache" in names else {}
        return layer_options(module, roles) | without_cache
    if not ({"use_cache", "cache", "past_key_values"} & names):
        return {}
    options = {_cache_name(module): batch["past"], "use_cache": True}
    if "position_ids" in names:
        options["position_ids"] = batch["position_ids"]
    # A recurrent state holds the earlier tokens already: only the new ones need a mask.
    if "attention_mask" in batch and _is_recurrent(batch["past"]):
        options["attention_mask"] = batch["attention_mask"][:, -batch["input_ids"].shape[1] :]
    return options


def _is_recurrent(cache: Any) -> bool:
    """Whether a cache has recurrent states only, no keys."""
    layers = getattr(cache, "layers", None) or ()
    return len(layers) > 0 and not any(hasattr(layer, "keys") for layer in layers)


def _cache_name(module: nn.Module) -> str:
    """Name of the cache argument in this version of transformers."""
    return "cache" if "cache" in _parameters_of(module) else "past_key_values"


def _parameters_of(module: nn.Module) -> frozenset[str]:
    """Parameter names of a forward; read for each token, inspected once."""
    # The function and not the bound method: the cache of results must not keep a model alive.
    function = getattr(module.forward, "__func__", module.forward)
    # torch.compile traces through the cache of results, and warns about it.
    uncached = _parameters.__wrapped__
    return uncached(function) if torch.compiler.is_compiling() else _parameters(function)


@functools.lru_cache(8)
def _parameters(function: Callable[..., Any]) -> frozenset[str]:
    return frozenset(inspect.signature(function).parameters)


def require_causal(model: Any, inputs: dict[str, Tensor]) -> None:
    """Check that a model predicts tokens from earlier ones; the test runs once per model.

    Args:
        model: a module that maps ``input_ids`` and ``attention_mask`` to logits.
        inputs: one batch of them, on the model's device.

    Raises:
        ValueError: for an encoder-decoder, and for a model whose logits depend on later tokens.
    """
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False) is True:
        raise ValueError(
            f"{type(model).__name__} is an encoder-decoder. Expected a decoder that reads one "
            "text, such as the classes of AutoModelForCausalLM. Use task: seq2seq"
        )
    if not getattr(model, IS_CAUSAL, False):
        _test_causal(model, inputs)


def _test_causal(model: Any, inputs: dict[str, Tensor]) -> None:
    probe = causal_head.probe_inputs(inputs)
    first = next(model.parameters(), None)
    if probe["input_ids"].shape[1] < 2 or (first is not None and not has_values(first)):
        return

    def logits(ids: Tensor) -> Tensor:
        outputs = model(**{**probe, "input_ids": ids})
        result: Tensor = outputs["logits"] if isinstance(outputs, Mapping) else outputs
        return result

    with side_effect_free(model):
        causal_head.check_causal(logits, probe["input_ids"], type(model).__name__)
    setattr(model, IS_CAUSAL, True)
