"""Export of the student as a folder for transformers, checked against the model."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from instil.core import Batch, Net, side_effect_free
from instil.data.chat_images import PROCESSOR_FILES
from instil.data.query_passages import first_token
from instil.data.subword_tokenizer import SubwordTokenizer
from instil.export.deployed_layers import fold_parametrizations, fold_steps
from instil.files.atomic import make_readable
from instil.students.low_rank import LowRank
from instil.students.quantized_base import is_quantized_base, merged_in_float32

TOLERANCE = 1e-4
"""Largest difference between the logits before and after, as a share of the largest logit."""
QUANTIZED_TOLERANCE = 2e-2
"""The same for a student with a quantised base, whose layers compute in a coarser type."""
ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
"""Special tokens of the class ``PreTrainedTokenizerFast``."""
TOKENIZER_OPTIONS = ("model_max_length", "clean_up_tokenization_spaces", "add_bos_token")
"""Other keys of ``tokenizer_config.json`` that any tokenizer class reads."""


def to_transformers(
    net: Net, batch: Batch, folder: str | Path, tokenizer: SubwordTokenizer | None = None
) -> dict[str, Any]:
    """Write configuration, weights and tokenizer.

    Args:
        net: student; it is not changed.
        batch: inputs on which the written model is compared with the student.
        folder: folder to write.
        tokenizer: tokenizer of the student. None: no tokenizer is written.

    Returns:
        ``file``, ``bytes``, ``max_difference`` (of the logits of ``batch``) and ``model``, the
        model that the folder holds.

    Raises:
        ValueError: if the student is not a model of transformers, or if the logits differ.
    """
    folder = Path(folder)
    model = to_standard_model(net.model)
    if tokenizer is not None:
        # An encoder-decoder keeps its own, such as the first token of its decoder, and so does an
        # encoder, whose positions may depend on the padding.
        if _is_decoder(model):
            _set_special_tokens(model, tokenizer)
        _write_tokenizer(tokenizer, folder, model)
    model.save_pretrained(folder)
    make_readable(folder)
    reloaded = type(model).from_pretrained(folder)
    tolerance = QUANTIZED_TOLERANCE if is_quantized_base(net.model) else TOLERANCE
    difference = logit_difference(net, Net(reloaded, net.call), batch, tolerance, folder)
    return {
        "file": f"{folder.name}/",
        "bytes": sum(file.stat().st_size for file in folder.iterdir()),
        "max_difference": difference,
        "model": reloaded,
    }


def to_standard_model(model: nn.Module) -> Any:
    """Return a copy that consists of modules of transformers only.

    Adapters are merged into their weights, quantised weights have their rounded values, and a head
    of low rank is multiplied out.

    Raises:
        ValueError: if the model is not one of transformers, or its activations are quantised.
    """
    copied: Any = copy.deepcopy(model)
    if hasattr(copied, "merge_and_unload") and is_quantized_base(copied):
        copied = merged_in_float32(copied)
    elif hasattr(copied, "merge_and_unload"):
        copied = copied.merge_and_unload()
    is_transformers = any(
        base.__module__.startswith("transformers.") for base in type(copied).__mro__
    )
    if not is_transformers or not hasattr(copied, "save_pretrained"):
        raise ValueError(
            f"model: unsupported class. Expected a model of transformers, got "
            f"{type(model).__name__}"
        )
    fold_parametrizations(copied)
    fold_steps(copied)
    for path, part in list(copied.named_modules()):
        if isinstance(part, LowRank):
            copied.set_submodule(path, _multiplied_out(part))
    return copied.eval()


def _multiplied_out(part: LowRank) -> nn.Linear:
    # No memory is allocated on the meta device; the weights are replaced at once.
    head = nn.Linear(part.down.in_features, part.out_features, part.bias is not None, device="meta")
    head.weight = nn.Parameter(part.weight.detach() @ part.down.weight.detach())
    if part.bias is not None:
        head.bias = part.bias
    return head


def logit_difference(net: Net, exported: Net, batch: Batch, tolerance: float, path: Path) -> float:
    """Compare the logits of the student and of its exported model.

    Args:
        net: student.
        exported: model in the file.
        batch: inputs.
        tolerance: largest allowed difference as a share of the largest logit, or of 1 if all logits
            are smaller.
        path: exported file or folder, for the message.

    Returns:
        The largest difference.

    Raises:
        ValueError: if the difference exceeds the tolerance.
    """
    before = _logits(net, batch)
    after = _logits(exported, batch)
    difference = (before - after).abs().max().item()
    largest = before.abs().max().item()
    # The negated comparison is also true for NaN.
    if not difference <= tolerance * max(largest, 1.0):
        raise ValueError(
            f"{path}: the exported student differs from the trained one. Expected logits within "
            f"{tolerance:g} of the largest, got a difference of {difference:.2g}"
        )
    return difference


def _logits(net: Net, batch: Batch) -> Tensor:
    with side_effect_free(net):
        logits: Tensor = net(batch)["logits"]
    return torch.as_tensor(logits).double()


def _set_special_tokens(model: Any, tokenizer: SubwordTokenizer) -> None:
    """Set the tokens that begin, end and pad a text in the configurations of a model.

    Other generation options are those of the folder that the tokenizer comes from.
    """
    from transformers import GenerationConfig

    ids = _ids_of_roles(tokenizer)
    # A smaller vocabulary changes the ids, so those of the folder are left out.
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
    """Ids for the configurations; ``eos_token_id`` is a list if several tokens end a text."""
    ends = list(tokenizer.ends)
    ids: dict[str, Any] = {"eos_token_id": ends if len(ends) > 1 else ends[0]}
    for role, default in (("bos", tokenizer.bos), ("pad", tokenizer.end)):
        token = tokenizer.files.token(role)
        index = None if token is None else tokenizer.inner.token_to_id(token)
        ids[f"{role}_token_id"] = default if index is None else index
    return ids


def _is_decoder(model: Any) -> bool:
    """Whether a model continues texts."""
    return not model.config.is_encoder_decoder and model.get_output_embeddings() is not None


def _write_tokenizer(tokenizer: SubwordTokenizer, folder: Path, model: Any) -> None:
    """Write the tokenizer with the special tokens and the chat template of its own folder."""
    from transformers import PreTrainedTokenizerFast

    files = tokenizer.files
    options = _tokenizer_options(tokenizer)
    if (longest := getattr(model.config, "max_position_embeddings", None)) is not None:
        options["model_max_length"] = longest
    for key in TOKENIZER_OPTIONS:
        if key in files.tokenizer_config:
            options[key] = files.tokenizer_config[key]
    # For other models the post-processor adds them, which the option would replace.
    if _is_decoder(model):
        options["add_bos_token"] = tokenizer.bos is not None
    fast: Any = PreTrainedTokenizerFast
    inner = tokenizer.inner if _is_decoder(model) else _with_end(tokenizer)
    written = fast(tokenizer_object=inner, **options)
    written.chat_template = files.chat_template
    written.save_pretrained(folder)
    for name in PROCESSOR_FILES:
        if tokenizer.source is not None and (tokenizer.source.parent / name).is_file():
            shutil.copyfile(tokenizer.source.parent / name, folder / name)


def _tokenizer_options(tokenizer: SubwordTokenizer) -> dict[str, Any]:
    """Special tokens by the names of their roles, as far as the tokenizer has them."""
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
    return options


def _with_end(tokenizer: SubwordTokenizer) -> Any:
    """Tokenizer of an encoder, which frames a text as the data do, also if it is new."""
    inner = tokenizer.inner
    if tokenizer.end in inner.encode("", add_special_tokens=True).ids:
        return inner
    from tokenizers.processors import TemplateProcessing

    first = first_token(tokenizer)
    ids = [tokenizer.end] if first is None else [first, tokenizer.end]
    tokens = [inner.id_to_token(index) for index in ids]
    single = [*tokens[:-1], "$A", tokens[-1]]
    copied = type(inner).from_str(inner.to_str())
    copied.post_processor = TemplateProcessing(
        single=single,
        pair=[*single, "$B", tokens[-1]],
        special_tokens=list(zip(tokens, ids, strict=True)),
    )
    return copied
