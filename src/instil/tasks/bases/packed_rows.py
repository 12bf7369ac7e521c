"""Forward pass over rows that hold several texts, which do not see one another."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from instil.core import Batch, side_effect_free
from instil.tasks.bases.causal_head import close

SEGMENT = "segment"
"""Key of a batch with the number of the text at each position (N, T); 0 for padding."""
SEPARATES_TEXTS = "_instil_separates_texts"
"""Attribute of a model that passed the test of ``require_separate``."""
PROBE_TOKENS = 8
"""Length of each of the two texts on which a model is tested."""


def forward(module: nn.Module, arguments: dict[str, Any], batch: Batch) -> Any:
    """Call a model, with separate texts if the rows of the batch hold several.

    Models of transformers find the texts by positions that start again; padding is a text of its
    own. With flash attention several rows become one, because its kernels read the positions of one
    row only. Other models get a mask (N, 1, T, T).

    Args:
        module: the model, or its body.
        arguments: arguments for rows of one text.
        batch: the batch; with ``segment`` and ``position_ids``, rows hold several texts.

    Returns:
        The outputs of the model.

    Raises:
        ValueError: if the texts of a row change one another's outputs.
    """
    if SEGMENT not in batch:
        return module(**arguments)
    _require_positions(module)
    if not getattr(module, SEPARATES_TEXTS, False):
        _test_separation(module, batch["input_ids"])
    return _packed(module, arguments, batch)


def _packed(module: nn.Module, arguments: dict[str, Any], batch: Batch) -> Any:
    position_ids: Tensor = batch["position_ids"]
    rest = {key: value for key, value in arguments.items() if key != "attention_mask"}
    implementation = getattr(getattr(module, "config", None), "_attn_implementation", None)
    if implementation is None:
        mask = block_mask(batch[SEGMENT])
        return module(**rest, position_ids=position_ids, attention_mask=mask)
    # A cache would make transformers ignore the positions at which texts start.
    options = {"use_cache": False} if "use_cache" in _parameters(module) else {}
    num_rows, length = position_ids.shape
    if "flash" not in implementation or num_rows == 1:
        return module(**(rest | options), position_ids=position_ids)
    return _in_one_row(module, rest | options, position_ids, (num_rows, length))


def _in_one_row(
    module: nn.Module, arguments: dict[str, Any], position_ids: Tensor, shape: tuple[int, int]
) -> dict[str, Any]:
    """Outputs of a batch whose rows follow one another in a single row."""
    flat = {
        key: value.reshape(1, -1) if isinstance(value, Tensor) and value.shape == shape else value
        for key, value in arguments.items()
    }
    outputs = module(**flat, position_ids=position_ids.reshape(1, -1))
    return {key: _in_rows(value, shape) for key, value in outputs.items()}


def _in_rows(value: Any, shape: tuple[int, int]) -> Any:
    if isinstance(value, tuple):
        return tuple(_in_rows(part, shape) for part in value)
    if isinstance(value, Tensor) and value.ndim == 3:
        return value.view(*shape, value.shape[2])
    return value


def block_mask(segment: Tensor) -> Tensor:
    """Return which positions are in the same text.

    Args:
        segment: number of the text at each position (N, T).

    Returns:
        (N, 1, T, T), bool. The order of the positions is not part of it.

    Example:
        >>> block_mask(torch.tensor([[1, 1, 2]]))[0, 0].int()
        tensor([[1, 1, 0],
                [1, 1, 0],
                [0, 0, 1]], dtype=torch.int32)
    """
    return (segment[:, None, :, None] == segment[:, None, None, :]).contiguous()


def _require_positions(module: nn.Module) -> None:
    if "position_ids" not in _parameters(module):
        raise ValueError(
            f"data.packing: {type(module).__name__} has no position_ids, so it cannot separate the "
            "texts of a row. Expected a transformer such as those of the Llama and Qwen families. "
            "Set data.packing=false"
        )


def _test_separation(module: nn.Module, input_ids: Tensor) -> None:
    """Compare the second text of a row with the same text alone, once per model."""
    length = min(PROBE_TOKENS, input_ids.shape[1] // 2)
    if length < 2:
        return
    ids = input_ids[:1, : 2 * length]
    half = torch.arange(length, device=ids.device)
    probe = {
        SEGMENT: torch.ones_like(ids).index_fill_(1, half, 2),
        "position_ids": torch.cat([half, half])[None],
    }
    with side_effect_free(module):
        together = _first_output(_packed(module, {"input_ids": ids}, probe))[:, length:]
        alone = _first_output(module(input_ids=ids[:, length:]))
        if not close(together, alone):
            raise ValueError(
                f"data.packing: the texts of a row change one another's outputs in "
                f"{type(module).__name__}. Expected a transformer whose attention follows "
                "position_ids, such as those of the Llama and Qwen families. Set "
                "data.packing=false"
            )
    setattr(module, SEPARATES_TEXTS, True)


def _first_output(outputs: Mapping[str, Any]) -> Tensor:
    key = "last_hidden_state" if "last_hidden_state" in outputs else "logits"
    state: Tensor = outputs[key]
    return state


def _parameters(module: nn.Module) -> frozenset[str]:
    function: Callable[..., Any] = module.forward
    return frozenset(inspect.signature(function).parameters)
