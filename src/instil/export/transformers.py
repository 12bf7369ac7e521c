"""The student as a folder that transformers reads, proven to give the same answers."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from instil.core import Batch, Net, side_effect_free
from instil.data.tokenizers import SubwordTokenizer
from instil.files.atomic import make_readable
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
    net: Net, batch: Batch, folder: str | Path, tokenizer: SubwordTokenizer | None = None
) -> dict[str, Any]:
    """Write configuration, weights and, where there is one of the library ``tokenizers``, the tokenizer; the net itself is left as it is.

    Gives ``file``, ``bytes`` and ``max_difference`` of the logits of ``batch`` by the model as it is read again. Raises ValueError where it is no
    model of transformers, or answers otherwise than before.
    """
    folder, made = Path(folder), standard(net.model)
    if tokenizer is not None:
        _set_special_tokens(made, tokenizer)
        _write(tokenizer, folder, made.config)
    made.save_pretrained(folder)
    make_readable(folder)
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


ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
TOKENIZER_OPTIONS = ("model_max_length", "clean_up_tokenization_spaces", "add_bos_token")
"""Further keys of ``tokenizer_config.json`` that belong to the texts and not to a class."""


def _set_special_tokens(model: Any, tokenizer: SubwordTokenizer) -> None:
    """Write into the configurations which tokens begin, end and pad a text.

    The generation configuration of the folder that the tokenizer comes from stays as it is, but
    for the ids, which a smaller vocabulary changes.
    """
    from transformers import GenerationConfig

    ids = _ids_of_roles(tokenizer)
    source = {
        key: value
        for key, value in tokenizer.files.generation_config.items()
        if not key.endswith("_token_id") and key != "transformers_version"
    }
    if source and hasattr(model, "generation_config"):
        model.generation_config = GenerationConfig.from_dict(source)
    for config in (model.config, getattr(model, "generation_config", None)):
        if config is not None:
            for name, value in ids.items():
                setattr(config, name, value)


def _ids_of_roles(tokenizer: SubwordTokenizer) -> dict[str, Any]:
    """``eos_token_id`` (a list where several tokens end a text), ``pad_token_id``, ``bos_token_id``."""
    ends = list(tokenizer.ends)
    ids: dict[str, Any] = {"eos_token_id": ends if len(ends) > 1 else ends[0]}
    for role, default in (("bos", tokenizer.bos), ("pad", tokenizer.end)):
        token = tokenizer.files.token(role)
        index = None if token is None else tokenizer.inner.token_to_id(token)
        ids[f"{role}_token_id"] = default if index is None else index
    return ids


def _write(tokenizer: SubwordTokenizer, folder: Path, config: Any) -> None:
    """Write the tokenizer with the special tokens and the chat template of its own folder."""
    from transformers import PreTrainedTokenizerFast

    files = tokenizer.files
    options: dict[str, Any] = {}
    for role in ROLES:
        token = files.token(role)
        if token is not None and tokenizer.inner.token_to_id(token) is not None:
            options[f"{role}_token"] = token
    eos_token = options.get("eos_token")
    if eos_token is None or tokenizer.inner.token_to_id(eos_token) not in tokenizer.ends:
        options["eos_token"] = tokenizer.inner.id_to_token(tokenizer.end)
    if tokenizer.bos is not None:
        options["bos_token"] = tokenizer.inner.id_to_token(tokenizer.bos)
    options.setdefault("pad_token", options["eos_token"])
    additional = files.additional_special_tokens()
    options["additional_special_tokens"] = [
        token for token in additional if tokenizer.inner.token_to_id(token) is not None
    ]
    if (longest := getattr(config, "max_position_embeddings", None)) is not None:
        options["model_max_length"] = longest
    for key in TOKENIZER_OPTIONS:
        if key in files.tokenizer_config:
            options[key] = files.tokenizer_config[key]
    options["add_bos_token"] = tokenizer.bos is not None
    fast: Any = PreTrainedTokenizerFast
    written = fast(tokenizer_object=tokenizer.inner, **options)
    written.chat_template = files.chat_template
    written.save_pretrained(folder)


def _logits(net: Net, batch: Batch) -> Tensor:
    with side_effect_free(net):
        logits: Tensor = net(batch)["logits"]
    return torch.as_tensor(logits).double()
