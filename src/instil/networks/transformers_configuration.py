"""Configurations of models of the library transformers."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from instil.cards import suggestion
from instil.networks.model_source import ModelRequest

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


def configuration(
    transformers: Any, request: ModelRequest, path: str | None, entries: dict[str, Any]
) -> Any:
    """Return the configuration of a model with some entries in place of its own.

    Args:
        transformers: the library.
        request: model that a recipe requests.
        path: folder of the model, or its name on the hub; None for entries alone.
        entries: entries that the recipe sets. Those that the data decide are filled in.

    Raises:
        ValueError: for an unknown entry, or without ``path`` and ``model_type``.
    """
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
