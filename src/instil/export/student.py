"""The student as one safetensors file: its weights, and the description that says how to build it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from instil.cards import closest
from instil.core import as_net
from instil.files.atomic import atomic
from instil.files.checksums import (
    NO_DIGEST,
    TENSORS_KEY,
    DamagedFileError,
    check_tensors,
    seal_tensors,
)

TIED = "instil.tied"
RESERVED = ("format", TIED, TENSORS_KEY)
REMEDY = "Restore the file from a copy, or delete it and run again"


def save_student(
    net: nn.Module, path: str | Path, description: dict[str, Any] | None = None
) -> Path:
    """Write the weights of the net's model and ``description`` (one JSON string a key, in the file's metadata).

    Tied weights are written once. Raises OSError where the disk is full, with an older file left intact; TypeError for what is not JSON.
    """
    tensors, tied = _untied(_bare(net).state_dict())
    metadata = {
        key: json.dumps(value) for key, value in {**(description or {}), TIED: tied}.items()
    }
    with atomic(path) as temporary:
        save_file(tensors, temporary, {"format": "pt", **metadata, TENSORS_KEY: NO_DIGEST})
        seal_tensors(temporary)
    return Path(path)


def load_student(net: nn.Module, path: str | Path) -> dict[str, Any]:
    """Fill the net's model with the weights in ``path`` and return their description.

    Raises DamagedFileError for a file whose content differs from its checksum, ValueError for one
    that cannot be read and for weights of another model (missing, unknown or differently shaped
    tensors).
    """
    description, model = read_description(path), _bare(net)
    with safe_open(str(path), "pt") as file:
        tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        tied = json.loads((file.metadata() or {}).get(TIED, "{}"))
    tensors |= {name: tensors[first] for name, first in tied.items()}
    _check(model, tensors, path)
    model.load_state_dict(tensors)
    return description


def read_description(path: str | Path) -> dict[str, Any]:
    """What ``save_student`` was told about the student, without reading the weights."""
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


def _bare(net: nn.Module) -> nn.Module:
    """The model as its author wrote it, without compile and replication wrappers, so that names in the file are the author's."""
    model: Any = as_net(net).model
    while True:
        if hasattr(model, "_orig_mod"):
            model = model._orig_mod
        elif isinstance(model, nn.parallel.DistributedDataParallel):
            model = model.module
        else:
            return model  # type: ignore[no-any-return]


def _untied(state: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Every distinct tensor once, on the CPU and in memory of its own; and for the others the name of their twin."""
    tensors: dict[str, Tensor] = {}
    tied: dict[str, str] = {}
    seen: dict[tuple[Any, ...], str] = {}
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise TypeError(
                f"'{name}' in the student's state is a {type(value).__name__}; only tensors can be written"
            )
        place = (value.device, value.data_ptr(), value.dtype, value.shape, value.stride())
        if value.numel() and place in seen:
            tied[name] = seen[place]
        else:
            seen[place] = name
            tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
    return tensors, tied


def _check(model: nn.Module, tensors: dict[str, Tensor], path: str | Path) -> None:
    wanted, kind = model.state_dict(), type(model).__name__
    if unknown := [name for name in tensors if name not in wanted]:
        raise ValueError(
            f"{path} holds '{unknown[0]}', which {kind} does not have; {closest(unknown[0], wanted)}"
        )
    if missing := [name for name in wanted if name not in tensors]:
        raise ValueError(f"{path} lacks '{missing[0]}' of {kind}; {closest(missing[0], tensors)}")
    for name, value in wanted.items():
        if tensors[name].shape != value.shape:
            raise ValueError(
                f"'{name}' has shape {tuple(tensors[name].shape)} in {path}, but {tuple(value.shape)} in {kind}"
            )
