"""The stack of layers inside a model, and the inputs and outputs of modules."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from instil.students import Observe, ObservesTokens


def stack(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """Return path and layers of the longest list of modules of one class.

    A model of transformers with a list of ``num_hidden_layers`` modules has those layers: speech
    models may have more convolutions than layers. Of lists of one length, these are the layers with
    linear parts. Of a vision-language model these are the layers of its decoder.

    Raises:
        ValueError: if the model has no such list.
    """
    root, decoder = _decoder(model)
    lists = [
        (path, part)
        for path, part in decoder.named_modules(prefix=root)
        if isinstance(part, nn.ModuleList) and len({type(layer) for layer in part}) == 1
    ]
    if not lists:
        raise ValueError(f"{type(model).__name__} has no list of layers of one kind")
    count = getattr(getattr(model, "config", None), "num_hidden_layers", None)
    layers = [entry for entry in lists if len(entry[1]) == count]
    return max(layers or lists, key=lambda entry: (len(entry[1]), _has_linear(entry[1])))


def _has_linear(layers: nn.ModuleList) -> bool:
    """Whether layers have linear parts, unlike the convolutions of a speech model."""
    return any(is_linear(part) for part in layers.modules())


def _decoder(model: nn.Module) -> tuple[str, nn.Module]:
    """Return path and decoder of a vision-language model; for other models, the model itself."""
    bare: Any = model
    config = getattr(model, "config", None)
    if not (hasattr(config, "vision_config") and hasattr(model, "get_decoder")):
        return "", model
    decoder = bare.get_decoder()
    for path, part in model.named_modules():
        if part is decoder and part is not model:
            return path, part
    return "", model


def is_linear(part: object) -> bool:
    """Whether a module is a linear layer, or a ``Conv1D`` of transformers."""
    return isinstance(part, nn.Linear) or is_transposed(part)


def is_transposed(part: object) -> bool:
    """Whether a module is a ``Conv1D`` of transformers, whose weight is (inputs, outputs)."""
    return type(part).__name__ == "Conv1D" and type(part).__module__.startswith("transformers.")


def output_head(model: nn.Module) -> nn.Module | None:
    """Return the head over tokens of a language model of transformers; None for other models."""
    if not hasattr(model, "get_output_embeddings"):
        return None
    language_model: Any = model
    head: nn.Module | None = language_model.get_output_embeddings()
    return head


def _first_tensor(value: Any) -> Tensor:
    """Return the first tensor of the arguments or the output of a module."""
    if isinstance(value, Tensor):
        return value
    return next(part for part in value if isinstance(part, Tensor))


def without_padding(states: Tensor, observe: Observe) -> Tensor:
    """Return the hidden states of the tokens of the current batch, without those of padding.

    Args:
        states: hidden states (N, T, D), or a tensor of another form, which stays as it is.
        observe: runs the model on samples.

    Returns:
        States (M, D) of M tokens. The states themselves if the batch has no mask of their shape,
        or masks that contradict each other.
    """
    if not isinstance(observe, ObservesTokens) or states.ndim != 3:
        return states
    masks = [mask for mask in observe.token_masks if mask.shape == states.shape[:2]]
    if not masks or any(not torch.equal(mask, masks[0]) for mask in masks):
        return states
    return states[masks[0].to(states.device)]


def observe_parts(
    model: nn.Module,
    parts: Iterable[nn.Module],
    observe: Observe,
    callback: Callable[[int, Tensor, Tensor], None],
) -> None:
    """Run a model on samples, and observe the inputs and outputs of its parts without gradients.

    Inputs and outputs with a row per token are (M, D) without the rows of padding, whose share
    depends on the width of a batch.

    Args:
        model: the model.
        parts: the modules.
        observe: runs the model on samples; None: ``callback`` is not called.
        callback: called as ``callback(index, input, output)`` for every call of a part.
    """
    if observe is None:
        return
    # A task tests some models on their first batch, by further passes that are no samples.
    with torch.no_grad():
        for _ in observe(model):
            break

    def hook(
        index: int, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> None:
        # The hidden state may be passed by keyword, and the output may be a tuple.
        part_input = _first_tensor((*args, *kwargs.values()))
        part_output = _first_tensor(output)
        callback(index, without_padding(part_input, observe), without_padding(part_output, observe))

    with contextlib.ExitStack() as hooks, torch.no_grad():
        for index, part in enumerate(parts):
            handle = part.register_forward_hook(functools.partial(hook, index), with_kwargs=True)
            # Removed on exit, also if a later registration fails.
            hooks.callback(handle.remove)
        for _ in observe(model):
            pass
