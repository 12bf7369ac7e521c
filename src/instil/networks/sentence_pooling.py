"""Pooling of the token states of a sentence encoder, as its folder defines it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

MEAN = ("mean",)
"""Pooling of an encoder that defines none."""
FLAG = "pooling_mode_"
"""Beginning of the entries of a pooling that are true or false."""
FLAGS = {
    "cls_token": "cls",
    "max_tokens": "max",
    "mean_tokens": "mean",
    "mean_sqrt_len_tokens": "mean",
    "lasttoken": "last",
}
"""Entries of a pooling, and names of values with the same direction."""
ORDER = ("cls", "max", "mean", "last")
"""Order of the parts of an embedding with several of them."""
WITHOUT_WEIGHTS = ("Transformer", "Normalize", "Dropout")
"""Further modules of sentence-transformers that do not change the direction of an embedding."""

ReadJson = Callable[[str], Any]
"""Function from the name of a file of a model to its content; None without the file."""


def pooling_of(read: ReadJson) -> tuple[str, ...]:
    """Return the parts of an embedding from the files of sentence-transformers.

    Args:
        read: reads a file in the folder of the model.

    Returns:
        Names of ``pooled``; the mean for a folder without ``modules.json``.

    Raises:
        ValueError: for modules or a pooling that are not supported.

    Example:
        >>> modules = [{"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"}]
        >>> files = {"modules.json": modules, "1_Pooling/config.json": {"pooling_mode": "cls"}}
        >>> pooling_of(files.get)
        ('cls',)
    """
    poolings: tuple[str, ...] = MEAN
    for module in read("modules.json") or []:
        kind = str(module["type"]).rpartition(".")[2]
        if kind == "Pooling":
            poolings = _poolings(read(f"{module['path']}/config.json") or {})
        elif kind not in WITHOUT_WEIGHTS:
            raise ValueError(
                f"modules.json: the module {kind} of sentence-transformers is not supported. "
                f"Expected Transformer, Pooling and Normalize. Use another encoder"
            )
    return poolings


def _poolings(config: dict[str, Any]) -> tuple[str, ...]:
    """Parts of an embedding by the configuration of a pooling."""
    modes = config.get("pooling_mode")
    if modes is None:
        is_set = [name for name, value in config.items() if name.startswith(FLAG) and value is True]
        modes = [name.removeprefix(FLAG) for name in is_set]
    modes = [modes] if isinstance(modes, str) else list(modes)
    names = [FLAGS.get(mode, FLAGS.get(f"{mode}_tokens", mode)) for mode in modes]
    for name in names:
        if name not in ORDER:
            raise ValueError(
                f"pooling: '{name}' of sentence-transformers is not supported. Expected one of "
                f"{', '.join(FLAGS)}. Use another encoder"
            )
    return tuple(sorted(names, key=ORDER.index)) or MEAN


def pooled(model: nn.Module, states: Tensor, mask: Tensor) -> Tensor:
    """Return the embeddings of texts (N, D), or (N, k D) for a pooling with k parts.

    Args:
        model: model with the attribute ``sentence_pooling``; the mean for one without it.
        states: last states of the tokens (N, L, D).
        mask: (N, L), 0 for padding.
    """
    poolings: Sequence[str] = getattr(model, "sentence_pooling", MEAN)
    return torch.cat([_part(name, states, mask) for name in poolings], 1)


def _part(name: str, states: Tensor, mask: Tensor) -> Tensor:
    weight = mask[..., None].to(states.dtype)
    if name == "mean":
        return (states * weight).sum(1) / weight.sum(1).clamp_min(1)
    if name == "max":
        lowest = torch.finfo(states.dtype).min
        return states.masked_fill(weight == 0, lowest).amax(1)
    positions = mask.long().cumsum(1) * mask.long()
    # The first token has the position 1, padding 0, and the last token the largest position.
    index = (positions == 1).int().argmax(1) if name == "cls" else positions.argmax(1)
    return states.gather(1, index[:, None, None].expand(-1, 1, states.shape[2]))[:, 0]
