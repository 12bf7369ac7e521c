"""Source ``transformers:``: models of the Auto classes of the library transformers."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from instil.cards import suggestion
from instil.networks.complete_weights import load_complete
from instil.networks.model_source import ModelRequest, ModelSource

DATA_OPTIONS = {
    "vocab_size": "vocabulary",
    "num_channels": "channels",
    "num_mel_bins": "channels",
    "image_size": "size",
}
"""Options of a configuration, and the property of the data that is their default."""

WITH_CLASSES = ("Classification", "ObjectDetection", "PoseEstimation", "Segmentation")
"""Parts of the names of Auto classes whose models have the classes of the data."""

TOKEN_OPTIONS = {
    "pad_token_id": "pad",
    "decoder_start_token_id": "start",
    "eos_token_id": "end",
    "forced_eos_token_id": "end",
}
"""Special tokens of the configuration of an encoder-decoder, and the property of the data."""
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
        config = request.create(lambda: _config(transformers, request, path, entries), hint)
        auto_class = _with_images(transformers, auto_class, config)
        # Quantised weights have another form, which only ``from_pretrained`` gives the layers.
        is_quantized = request.pretrained and _is_quantized(config, options)
        if request.loads_weights or is_quantized:
            if path is None:
                raise ValueError(f"{request.spec}: pretrained needs the option path")
            load = auto_class.from_pretrained
            model = request.create(lambda: load_complete(load, path, config=config, **options))
        else:
            model = request.create(lambda: auto_class.from_config(config, **options))
            _rescale_positions(model, config)
        if is_quantized:
            _keep_unpacked(model)
        model.expects = _expected_input(config)
        return model  # type: ignore[no-any-return]


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


def _config(
    transformers: Any, request: ModelRequest, path: str | None, entries: dict[str, Any]
) -> Any:
    if path is None and "model_type" not in entries:
        raise ValueError(
            "expected the option path, or config with a model_type such as {model_type: bert}"
        )
    if any(name in request.name for name in WITH_CLASSES) and "classes" in request.facts:
        entries = {"num_labels": request.facts["classes"]} | entries
    if request.name == "AutoModelForCTC" and "classes" in request.facts:
        # Class 0 is the blank, which these models call the padding.
        entries = {"vocab_size": request.facts["classes"], "pad_token_id": 0} | entries
    if path is not None:
        # The configuration of a GGUF file is in the file.
        if "gguf_file" in request.options:
            entries = {"gguf_file": request.options["gguf_file"]} | entries
        return _of_folder(transformers, path, entries)
    model_type = entries.pop("model_type")
    config_class = type(transformers.AutoConfig.for_model(model_type))
    return _of_class(config_class, _data_options(config_class, request.facts), entries)


def _of_class(config_class: Any, from_data: Mapping[str, Any], entries: dict[str, Any]) -> Any:
    """Configuration of a class with these entries.

    Raises:
        ValueError: for an entry that the class only stores.
    """
    plain = config_class()
    config = config_class(**{**from_data, **entries})
    for name in entries:
        # Entries of an older form, such as backbone, are converted and not stored; null is none.
        if hasattr(plain, name) or getattr(config, name, None) is None:
            continue
        others = {key: value for key, value in entries.items() if key != name}
        without = config_class(**{**from_data, **others}).to_dict()
        # Some entries are stored and read as well, such as rope_theta.
        if {**config.to_dict(), name: None} == {**without, name: None}:
            raise ValueError(_unknown_entry(name, plain))
    return config


def _of_folder(transformers: Any, path: str, entries: dict[str, Any]) -> Any:
    """Configuration of a folder or of the hub with these entries in place of its own.

    Raises:
        ValueError: for an entry that the configuration does not have.
    """
    config, unused = transformers.AutoConfig.from_pretrained(
        path, return_unused_kwargs=True, **entries
    )
    for name in entries:
        # A GGUF file is where the other entries come from.
        if name in unused and name != "gguf_file":
            raise ValueError(_unknown_entry(name, config))
    return config


def _unknown_entry(name: str, config: Any) -> str:
    hint = suggestion(name, config.to_dict())
    return f"options.config.{name}: unknown entry of {type(config).__name__}.{hint}"


def _data_options(config_class: Any, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Options that the data decide, as far as the configuration has them."""
    parameters = inspect.signature(config_class).parameters
    options = {
        option: facts[fact]
        for option, fact in DATA_OPTIONS.items()
        if option in parameters and fact in facts
    }
    # Only data of pairs have a start token; a decoder keeps the tokens of its configuration.
    if "start" in facts:
        options |= {option: facts[fact] for option, fact in TOKEN_OPTIONS.items()}
    return options


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


def _expected_input(config: Any) -> dict[str, Any]:
    """Size of the images, if the configuration fixes it."""
    size = getattr(config, "image_size", None)
    if not size:
        return {}
    return {"size": tuple(size) if isinstance(size, (list, tuple)) else size}
