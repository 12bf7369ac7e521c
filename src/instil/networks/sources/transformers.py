"""Source ``transformers:``: models of the Auto classes of the library transformers."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from instil.cards import suggestion
from instil.networks.complete_weights import load_complete
from instil.networks.inputs import transformers_input
from instil.networks.model_source import ModelRequest, ModelSource
from instil.networks.sentence_pooling import pooling_of
from instil.networks.transformers_configuration import configuration

OPTIONS = ("path", "config", "dtype", "attn_implementation", "quantization_config", "gguf_file")
"""Options of a model; the entries of a configuration are those of ``config``."""
WEIGHT_SUFFIXES = (".json", ".safetensors", ".bin", ".gguf")
"""Suffixes of the files of a folder that decide what a model computes."""


class TransformersSource(ModelSource):
    """Models of an Auto class, such as ``transformers:AutoModelForImageClassification``.

    In a recipe ``transformers:FOLDER`` is the Auto class of the task with the weights of a folder.

    Options: ``path``, a local folder (relative to the recipe) or the name of a model on the hub;
    or ``config``, the entries of a configuration with its ``model_type``. With both, the entries
    replace those of the folder. Further options are those of ``from_pretrained``, such as
    ``dtype``, ``attn_implementation``, ``quantization_config`` and ``gguf_file``. The weights of
    ``path`` are loaded with ``pretrained: true``. Code in the folder of a model is not executed.
    """

    package = "transformers"
    extra = "text"
    has_weights = True

    def files(self, request: ModelRequest) -> list[Path]:
        path = request.options.get("path")
        if path is None:
            return []
        folder = request.base / path
        return sorted(file for file in folder.glob("*") if file.suffix in WEIGHT_SUFFIXES)

    def build(self, request: ModelRequest) -> nn.Module:
        transformers = self.library(request.spec)
        auto_class = _auto_class(transformers, request)
        options = dict(request.options)
        path, entries = options.pop("path", None), dict(options.pop("config", {}))
        if "trust_remote_code" in options:
            raise ValueError(
                f"{request.spec}: trust_remote_code would execute code of the model. Expected a "
                "model of the library. Write a builder function (my_module:build) for other code"
            )
        if path is not None:
            path = _located(request, path)
        hint = _missing_folder(request, path)
        config = request.create(lambda: configuration(transformers, request, path, entries), hint)
        auto_class = _with_images(transformers, auto_class, config)
        # Entries of the configuration are often written one level too high.
        names = [*OPTIONS, *(f"config.{name}" for name in options if hasattr(config, name))]
        # Quantised weights have another form, which only ``from_pretrained`` gives the layers.
        is_quantized = request.pretrained and _is_quantized(config, options)
        if request.loads_weights or is_quantized:
            if path is None:
                raise ValueError(f"{request.spec}: pretrained needs the option path")
            load = auto_class.from_pretrained
            model = request.create(
                lambda: load_complete(load, path, config=config, **options), names=names
            )
        else:
            model = request.create(lambda: auto_class.from_config(config, **options), names=names)
            _rescale_positions(model, config)
        if is_quantized:
            _keep_unpacked(model)
        if request.name == "AutoModel" and request.pretrained and path is not None:
            read = functools.partial(_read_json, transformers, path)
            model.sentence_pooling = request.create(lambda: pooling_of(read))
        model.expects = transformers_input(
            transformers, config, path if request.pretrained else None
        )
        return model  # type: ignore[no-any-return]


def _read_json(transformers: Any, path: str, name: str) -> Any:
    """Return the content of a file in the folder of a model, or on the hub; None without it."""
    file = transformers.utils.cached_file(
        path,
        name,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return None if file is None else json.loads(Path(file).read_text(encoding="utf-8"))


def _is_quantized(config: Any, options: Mapping[str, Any]) -> bool:
    is_in_folder = getattr(config, "quantization_config", None) is not None
    return is_in_folder or "quantization_config" in options


def _keep_unpacked(model: Any) -> None:
    """Keep layers of bitsandbytes on the CPU in the form in which gradients pass through them.

    In evaluation mode they pack their weights for a kernel without a backward pass, and a later
    step of training would use it.
    """
    for part in model.modules():
        if hasattr(part, "support_avx512bf16_for_cpu"):
            part.support_avx512bf16_for_cpu = False


def _with_images(transformers: Any, auto_class: Any, config: Any) -> Any:
    """Return the Auto class of vision-language models for one that has no causal class.

    Its decoder reads texts alone too.
    """
    causal = transformers.AutoModelForCausalLM
    with_images = transformers.AutoModelForImageTextToText
    is_causal = auto_class is causal and type(config) not in causal._model_mapping
    return with_images if is_causal and type(config) in with_images._model_mapping else auto_class


def _located(request: ModelRequest, path: str) -> str:
    """Return the folder of a model, or its name on the hub.

    Raises:
        ValueError: for a path that is neither.
    """
    if (request.base / path).is_dir():
        return str(request.base / path)
    # A name on the hub has an owner at most.
    if path.startswith((".", "~", "/")) or path.count("/") > 1:
        raise ValueError(
            f"options.path: no folder {request.base / path}. Expected a folder that "
            "save_pretrained wrote, or the name of a model on the hub"
        )
    return path


def _missing_folder(request: ModelRequest, path: str | None) -> str:
    """End of the message for a path that may be a mistyped folder; empty for a folder."""
    if path is None or Path(path).is_dir():
        return ""
    names = [entry.parent.name for entry in request.base.glob("*/config.json")]
    return f" There is no folder '{path}' in {request.base.resolve()}.{suggestion(path, names)}"


def _auto_class(transformers: Any, request: ModelRequest) -> Any:
    names = [name for name in dir(transformers) if name.startswith("AutoModel")]
    if request.name not in names:
        raise ValueError(
            f"transformers has no Auto class '{request.name}'. Set the model itself by the options "
            f"path or config.{suggestion(request.name, names)}"
        )
    return getattr(transformers, request.name)


def _rescale_positions(model: Any, config: Any) -> None:
    """Give random positions of SAM the scale of its authors, 1.

    transformers draws them with the scale hidden_size // 2. Sines of such frequencies tell a model
    without trained weights nothing about a prompt.
    """
    shared = getattr(model, "shared_image_embedding", None)
    scale = getattr(getattr(config, "vision_config", None), "scale", None)
    if shared is not None and scale:
        with torch.no_grad():
            shared.positional_embedding.div_(scale)
