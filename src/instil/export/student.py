"""Safetensors file with the weights of a student and a description of how to build it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from instil.cards import suggestion
from instil.core import as_net
from instil.files.atomic import atomic
from instil.files.checksums import (
    NO_DIGEST,
    TENSORS_KEY,
    DamagedFileError,
    check_tensors,
    seal_tensors,
)
from instil.networks.model_source import KeepsSettings, ResizesState
from instil.students.quantized_base import is_quantized_base

TIED = "instil.tied"
"""Key of the metadata that maps the name of a tied weight to the name that is stored."""
SETTINGS = "instil.settings"
"""Key of the metadata with the settings of a model that ``KeepsSettings``."""
RESERVED = ("format", TIED, SETTINGS, TENSORS_KEY)
ADAPTER = ".lora_"
"""Part of the names of the weights of adapters."""
REMEDY = "Restore the file from a copy, or delete it and run again"


def save_student(
    net: nn.Module, path: str | Path, description: dict[str, Any] | None = None
) -> Path:
    """Write the weights of a model and a description. Tied weights are written once.

    Args:
        net: net or model.
        path: file to write; an older file is replaced only by a complete one.
        description: values for the metadata of the file, each written as JSON.

    Returns:
        Path of the file.

    Raises:
        OSError: if the disk is full.
        TypeError: if a value of the description is not JSON, or the state has other values than
            tensors.
    """
    model = _unwrap(net)
    tensors, tied = _split_tied(_stored_state(model))
    metadata = {key: json.dumps(value) for key, value in (description or {}).items()}
    metadata[TIED] = json.dumps(tied)
    if isinstance(model, KeepsSettings):
        metadata[SETTINGS] = json.dumps(model.settings())
    with atomic(path) as temporary:
        # The digest has a fixed length, so it is filled in after the file is written.
        save_file(tensors, temporary, {"format": "pt", **metadata, TENSORS_KEY: NO_DIGEST})
        seal_tensors(temporary)
    return Path(path)


def load_student(net: nn.Module, path: str | Path) -> dict[str, Any]:
    """Load the weights in a file into a model.

    Args:
        net: net or model of the same architecture.
        path: file of ``save_student``, or another safetensors file with the same names.

    Returns:
        Description in the file.

    Raises:
        DamagedFileError: if the file cannot be read or its content differs from its checksum.
        ValueError: for weights of another model (missing, unknown or differently shaped tensors).
    """
    description = read_description(path)
    model = _unwrap(net)
    with safe_open(str(path), "pt") as file:
        names = file.keys()
        tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in names}
        metadata: dict[str, str] = file.metadata() or {}
    tied = json.loads(metadata.get(TIED, "{}"))
    tensors |= {name: tensors[stored] for name, stored in tied.items()}
    if isinstance(model, ResizesState):
        model.resize_state(tensors)
    _check_names_and_shapes(model, tensors, path)
    model.load_state_dict(tensors, strict=not is_quantized_base(model))
    if isinstance(model, KeepsSettings) and SETTINGS in metadata:
        model.load_settings(json.loads(metadata[SETTINGS]))
    return description


def read_description(path: str | Path) -> dict[str, Any]:
    """Return the description that was given to ``save_student``, without reading the weights.

    Raises:
        DamagedFileError: if the file cannot be read or its content differs from its checksum.
    """
    try:
        with safe_open(str(path), "pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
        # Weights that another program wrote have neither entry.
        if TIED in metadata or TENSORS_KEY in metadata:
            check_tensors(path, REMEDY)
    except (SafetensorError, OSError) as error:
        raise DamagedFileError(
            f"{path} is not a readable safetensors file: {error}. {REMEDY}."
        ) from error
    return {key: json.loads(value) for key, value in metadata.items() if key not in RESERVED}


def _unwrap(net: nn.Module) -> nn.Module:
    """Model without the wrappers of compilation and replication, which prefix the names."""
    model: Any = as_net(net).model
    while True:
        if hasattr(model, "_orig_mod"):
            model = model._orig_mod
        elif isinstance(model, nn.parallel.DistributedDataParallel):
            model = model.module
        else:
            return model  # type: ignore[no-any-return]


def _stored_state(model: nn.Module) -> dict[str, Any]:
    """State of a model; only that of the adapters for one on a quantised base.

    The base is read from its own folder again.
    """
    state = model.state_dict()
    if not is_quantized_base(model):
        return state
    return {name: value for name, value in state.items() if ADAPTER in name}


def _split_tied(state: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Separate distinct tensors from those that share memory with an earlier one.

    Returns:
        Distinct tensors, copied to the CPU, and for each other tensor the name of the earlier one.
    """
    tensors: dict[str, Tensor] = {}
    tied: dict[str, str] = {}
    names: dict[tuple[Any, ...], str] = {}
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise TypeError(
                f"'{name}' in the state of the student has the wrong type. Expected a tensor, got "
                f"a {type(value).__name__}"
            )
        memory = (value.device, value.data_ptr(), value.dtype, value.shape, value.stride())
        # All empty tensors have the address 0, so they are never tied.
        if value.numel() and memory in names:
            tied[name] = names[memory]
        else:
            names[memory] = name
            tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
    return tensors, tied


def _check_names_and_shapes(model: nn.Module, tensors: dict[str, Tensor], path: str | Path) -> None:
    expected = _stored_state(model)
    kind = type(model).__name__
    unknown = [name for name in tensors if name not in expected]
    if unknown:
        raise ValueError(
            f"{path}: unknown tensor '{unknown[0]}'. Expected the tensors of {kind}."
            f"{suggestion(unknown[0], expected)}"
        )
    missing = [name for name in expected if name not in tensors]
    if missing:
        raise ValueError(
            f"{path}: missing tensor '{missing[0]}' of {kind}.{suggestion(missing[0], tensors)}"
        )
    for name, value in expected.items():
        if tensors[name].shape != value.shape:
            raise ValueError(
                f"{path}: wrong shape of '{name}'. Expected {tuple(value.shape)} as in {kind}, got "
                f"{tuple(tensors[name].shape)}"
            )
