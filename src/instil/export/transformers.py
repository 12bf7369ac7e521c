"""The student as a folder that transformers reads, proven to give the same answers."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from instil.core import Batch, Net, dry
from instil.students.low_rank import LowRank

TOLERANCE = 1e-4
"""Largest difference between the logits before and after, as a share of the largest logit."""


def standard(model: nn.Module) -> Any:
    """A copy of which transformers knows every part: adapters are added to their weights, rounded weights are as they round, a head of low rank is
    multiplied out. ValueError where the model is none of transformers.
    """
    made: Any = copy.deepcopy(model)
    if hasattr(made, "merge_and_unload"):
        made = made.merge_and_unload()
    if not any(
        base.__module__.startswith("transformers.") for base in type(made).__mro__
    ) or not hasattr(made, "save_pretrained"):
        raise ValueError(
            f"{type(model).__name__} is no model of transformers, as which it could be written"
        )
    for path, part in list(made.named_modules()):
        if parametrize.is_parametrized(part, "weight"):
            weight = part.weight.detach()
            part.__class__ = type(part).__bases__[
                0
            ]  # remove_parametrizations changes the class, which the copy shares with its model
            del part.parametrizations
            part.weight = nn.Parameter(weight)
        if isinstance(part, LowRank):
            head = nn.Linear(
                part.down.in_features, part.out_features, part.bias is not None, device="meta"
            )
            head.weight = nn.Parameter(part.weight.detach() @ part.down.weight.detach())
            if part.bias is not None:
                head.bias = part.bias
            made.set_submodule(path, head)
    return made.eval()


def to_transformers(
    net: Net, batch: Batch, folder: str | Path, tokenizer: Any = None
) -> dict[str, Any]:
    """Write configuration, weights and, where there is one of the library ``tokenizers``, the tokenizer; the net itself is left as it is.

    Gives ``file``, ``bytes`` and ``max_difference`` of the logits of ``batch`` by the model as it is read again. Raises ValueError where it is no
    model of transformers, or answers otherwise than before.
    """
    folder, made = Path(folder), standard(net.model)
    if tokenizer is not None:
        _tell_ends(made, tokenizer.end)
        _write(tokenizer, folder, made.config)
    made.save_pretrained(folder)
    again = type(made).from_pretrained(folder)
    found = difference(net, Net(again, net.call), batch, TOLERANCE, folder)
    size = sum(file.stat().st_size for file in folder.iterdir())
    return {"file": f"{folder.name}/", "bytes": size, "max_difference": found, "model": again}


def difference(net: Net, again: Net, batch: Batch, tolerance: float, place: Path) -> float:
    """The largest one of the logits before and after. Raises ValueError beyond this share of the largest logit."""
    before, after = (_logits(one, batch) for one in (net, again))
    found, largest = (before - after).abs().max().item(), before.abs().max().item()
    if not found <= tolerance * max(largest, 1.0):
        raise ValueError(
            f"the student in {place} answers otherwise than the one that was trained: logits differ by {found:.2g}"
        )
    return found


def _tell_ends(model: Any, end: int) -> None:
    """The token that ends a text, as the student has learned it."""
    for config in (model.config, getattr(model, "generation_config", None)):
        if config is not None:
            config.eos_token_id = end
            config.pad_token_id = (
                end if getattr(config, "pad_token_id", None) is None else config.pad_token_id
            )


def _write(tokenizer: Any, folder: Path, config: Any) -> None:
    from transformers import PreTrainedTokenizerFast

    end = tokenizer.inner.id_to_token(tokenizer.end)
    most = getattr(config, "max_position_embeddings", None)
    given: Mapping[str, Any] = {
        "eos_token": end,
        "pad_token": end,
        **({"model_max_length": most} if most else {}),
    }
    fast: Any = PreTrainedTokenizerFast
    fast(tokenizer_object=tokenizer.inner, **given).save_pretrained(folder)


def _logits(net: Net, batch: Batch) -> Tensor:
    with dry(net):
        logits: Tensor = net(batch)["logits"]
    return torch.as_tensor(logits).double()
