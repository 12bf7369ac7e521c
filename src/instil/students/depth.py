"""Depth pruning: some of the layers of a model."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from torch import nn
from typing_extensions import Doc

from instil.students import Observe
from instil.students.configured import match_configuration, text_config
from instil.students.layer_choice import angular_distances, influence
from instil.students.layers import stack

By = Literal["even", "first", "last", "influence", "block"]
Layers = int | list[int]
ENCODER_FIELDS = ("encoder_layers", "num_layers")
"""Fields of a configuration with the number of encoder layers."""
DECODER_FIELDS = ("decoder_layers", "num_decoder_layers")
"""Fields of a configuration with the number of decoder layers."""


def depth(
    model: nn.Module,
    layers: Annotated[
        Layers | None, Doc("number of layers that stay, or their indices, counted from 0")
    ] = None,
    by: Annotated[
        By,
        Doc(
            "choice of the layers: evenly spaced (Sanh et al. 2019), first, last, or by samples: "
            "influence keeps the largest 1 - E[cos(input, output)] (Men et al. 2024), block cuts "
            "neighbours with the smallest angle from input to output (Gromov et al. 2024)"
        ),
    ] = "even",
    observe: Observe = None,
    encoder_layers: Annotated[
        Layers | None, Doc("layers of an encoder-decoder's encoder that stay; null: all")
    ] = None,
    decoder_layers: Annotated[
        Layers | None, Doc("layers of an encoder-decoder's decoder that stay; null: all")
    ] = None,
) -> nn.Module:
    """Keep some layers of a model, in their order and in place.

    Encoder-decoders have ``encoder_layers`` and ``decoder_layers`` instead of ``layers``: few
    decoder layers and all encoder layers in Distil-Whisper (Gandhi et al. 2023) and DistilBART
    (Shleifer & Rush 2020).

    Raises:
        ValueError: for layers that do not exist, and for a model without a list of layers of one
            class.
    """
    if encoder_layers is None and decoder_layers is None:
        _keep(model, model, _layers_of_one_stack(model, layers), by, observe)
        match_configuration(model, "depth")
        return model
    bare: Any = model
    _check_two_stacks(bare, layers)
    if encoder_layers is not None:
        _cut_part(bare, bare.get_encoder(), ENCODER_FIELDS, encoder_layers, by, observe)
    if decoder_layers is not None:
        _cut_part(bare, bare.get_decoder(), DECODER_FIELDS, decoder_layers, by, observe)
    match_configuration(model, "depth")
    return model


def _layers_of_one_stack(model: nn.Module, layers: Layers | None) -> Layers:
    """Return the layers that stay in a model without ``encoder_layers`` and ``decoder_layers``."""
    if layers is None:
        raise ValueError("layers: missing. Expected the number of layers that stay")
    if _has_two_stacks(model):
        raise ValueError(
            f"layers: {type(model).__name__} is an encoder-decoder. Set encoder_layers or "
            "decoder_layers"
        )
    return layers


def _check_two_stacks(model: Any, layers: Layers | None) -> None:
    """Check that a model is an encoder-decoder, whose layers have options of their own."""
    if layers is not None:
        raise ValueError(
            "layers: not for an encoder-decoder. Leave it out, and set encoder_layers or "
            "decoder_layers"
        )
    is_pair = getattr(getattr(model, "config", None), "is_encoder_decoder", True) is not False
    if not is_pair or not hasattr(model, "get_encoder"):
        raise ValueError(
            f"encoder_layers: {type(model).__name__} is not an encoder-decoder. Set layers"
        )


def _has_two_stacks(model: Any) -> bool:
    """Whether a model has layers of an encoder and layers of a decoder."""
    if not (hasattr(model, "get_encoder") and hasattr(model, "get_decoder")):
        return False
    if getattr(getattr(model, "config", None), "is_encoder_decoder", True) is False:
        return False
    # A model with one of the parts, such as WhisperForAudioClassification, returns itself.
    return model.get_encoder() is not model and model.get_decoder() is not model


def _keep(model: nn.Module, part: nn.Module, layers: Layers, by: By, observe: Observe) -> list[int]:
    """Keep layers of the model or of one of its parts; returns their indices."""
    path, all_layers = stack(part)
    count = layers if isinstance(layers, int) else len(layers)
    if count > len(all_layers) or count < 1:
        raise ValueError(
            f"{type(part).__name__} has {len(all_layers)} layers; {count} cannot be kept"
        )
    indices = layers
    if isinstance(indices, int):
        indices = _choose(model, all_layers, count, by, observe)
    _check_indices(indices, len(all_layers))
    if 0 not in indices and _holds_positions(all_layers):
        raise ValueError(
            f"{type(part).__name__}: its first layer holds the position biases of all layers. "
            "Expected layers with layer 0. Set by: even or first"
        )
    # The layers themselves move to the new list: weights are not copied.
    part.set_submodule(path, nn.ModuleList(all_layers[index] for index in indices))
    for new_index, index in enumerate(indices):
        _set_layer_index(all_layers[index], new_index)
    if part is model:
        _update_config(text_config(model), indices, len(all_layers))
    return indices


def _holds_positions(layers: nn.ModuleList) -> bool:
    """Whether only the first layer has position biases, as in T5."""
    has_bias = [
        any("relative_attention_bias" in name for name, _ in layer.named_parameters())
        for layer in layers
    ]
    return has_bias[0] and not any(has_bias[1:])


def _check_indices(indices: list[int], num_layers: int) -> None:
    in_range = all(0 <= index < num_layers for index in indices)
    if not in_range or sorted(set(indices)) != list(indices):
        raise ValueError(
            f"layers are numbers from 0 to {num_layers - 1}, each once and in order, not {indices}"
        )


def _choose(
    model: nn.Module, all_layers: nn.ModuleList, count: int, by: By, observe: Observe
) -> list[int]:
    """Return the indices of the layers that stay."""
    num_layers = len(all_layers)
    if by == "influence" and observe is not None:
        scores = influence(model, all_layers, observe)
        ranked = sorted(range(num_layers), key=lambda index: -scores[index])
        return sorted(ranked[:count])
    if by == "block" and observe is not None:
        num_removed = num_layers - count
        angles = angular_distances(model, all_layers, num_removed, observe)
        start = angles.index(min(angles))
        return [*range(start), *range(start + num_removed, num_layers)]
    if by == "first":
        return list(range(count))
    if by == "last":
        return list(range(num_layers - count, num_layers))
    if count == 1:
        return [0]
    return [round(index * (num_layers - 1) / (count - 1)) for index in range(count)]


def _set_layer_index(layer: nn.Module, index: int) -> None:
    """Set the index that layers of transformers use for their cache."""
    for part in layer.modules():
        if hasattr(part, "layer_idx"):
            part.layer_idx = index  # type: ignore[assignment]


def _update_config(config: Any, indices: list[int], num_layers: int) -> None:
    """Set the number and kinds of layers in a configuration of transformers."""
    if config is None:
        return
    _update_experts(config, indices)
    for name, value in list(vars(config).items()):
        # Such as layer_types, the kinds of attention, and no_rope_layers.
        if "layer" in name and isinstance(value, list) and len(value) == num_layers:
            setattr(config, name, [value[index] for index in indices])
    config.num_hidden_layers = len(indices)


def _update_experts(config: Any, indices: list[int]) -> None:
    """Set which layers have experts, for configurations that derive it from the index."""
    if hasattr(config, "decoder_sparse_step"):
        step = config.decoder_sparse_step
        dense = set(getattr(config, "mlp_only_layers", None) or [])
        is_dense = [index in dense or (index + 1) % step > 0 for index in indices]
        config.decoder_sparse_step = 1
        config.mlp_only_layers = [new_index for new_index, dense in enumerate(is_dense) if dense]
    if isinstance(first := getattr(config, "first_k_dense_replace", None), int):
        config.first_k_dense_replace = sum(index < first for index in indices)


def _cut_part(
    model: Any,
    part: nn.Module,
    fields: tuple[str, ...],
    layers: Layers,
    by: By,
    observe: Observe,
) -> None:
    """Keep layers of the encoder or decoder, and set their number in the configurations."""
    num_layers = len(stack(part)[1])
    indices = _keep(model, part, layers, by, observe)
    config = getattr(model, "config", None)
    for field in fields:
        if hasattr(config, field):
            setattr(config, field, len(indices))
    # A stack of T5 has a configuration of its own, which names its layers as an encoder does.
    own = getattr(part, "config", None)
    if own is not None and own is not config:
        _update_config(own, indices, num_layers)
