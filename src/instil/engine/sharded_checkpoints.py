"""Contents of the checkpoint of a sharded training, which is a folder.

It has the shards as ``torch.distributed.checkpoint`` writes them, the other values in ``values.pt``
and the checksums of all files in ``files.json``.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.optim import Optimizer

from instil.core import Scheme
from instil.engine.checkpoint_paths import check_checkpoint
from instil.engine.checkpoints import (
    REMEDY,
    check_scheme,
    parameters_in_order,
    read_checkpoint,
    restore,
    restore_optimizer,
)
from instil.engine.processes import rank, run_on_first_rank, world_size
from instil.engine.shard_reader import SafeReader
from instil.engine.state import trainable_state

VALUES = "values.pt"
"""File of the values of a checkpoint that are not sharded."""


def flatten_state(
    scheme: Scheme, optimizers: dict[str, Optimizer]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors of a training by name, and the parameter groups of its optimizers.

    Args:
        scheme: scheme; teachers that do not change are left out.
        optimizers: optimizer of each learner.
    """
    tensors = {f"scheme.{name}": value for name, value in trainable_state(scheme).items()}
    groups: dict[str, Any] = {}
    for learner, optimizer in optimizers.items():
        state = optimizer.state_dict()
        groups[learner] = state["param_groups"]
        for index, moments in state["state"].items():
            for key, moment in moments.items():
                tensors[f"optimizers.{learner}.{index}.{key}"] = moment
    return tensors, groups


Values = dict[str, Any]


def restore_checkpoint(
    path: Path, scheme: Scheme, optimizers: dict[str, Optimizer], device: torch.device
) -> tuple[Values, Values]:
    """Restore a checkpoint, which is a file or the folder of a sharded training.

    Args:
        path: the checkpoint.
        scheme: scheme of the same structure, with any number of ranks, sharded or not.
        optimizers: optimizer of each learner.
        device: device of values that are tensors.

    Returns:
        ``extra`` of ``save``, and ``own`` on this rank; {} if the number of ranks differs.

    Raises:
        ValueError: if a file is damaged, or the checkpoint is of another scheme.
    """
    if path.is_dir():
        return restore_folder(path, scheme, optimizers, device)
    contents = read_checkpoint(path, device)
    return contents.extra, restore(contents, path, scheme, optimizers) or {}


def restore_folder(
    path: Path, scheme: Scheme, optimizers: dict[str, Optimizer], device: torch.device
) -> tuple[Values, Values]:
    """Read the parts of a folder that this rank holds into a scheme and its optimizers.

    Args:
        path: folder of the checkpoint.
        scheme: scheme of the same structure, with any number of ranks, sharded or not.
        optimizers: optimizer of each learner.
        device: device of values that are tensors.

    Returns:
        ``extra`` of ``save``, and ``own`` on this rank; {} if the number of ranks differs.

    Raises:
        DamagedFileError: if a file is damaged. Code in it is not run.
        ValueError: if the checkpoint is of another scheme, which then has not changed.
    """
    run_on_first_rank(lambda: check_checkpoint(path, REMEDY))
    values = torch.load(path / VALUES, map_location=device, weights_only=True)
    reader = SafeReader(path)
    saved = _descriptions(reader)
    prefix = "scheme."
    state = trainable_state(scheme)
    shapes = {
        name.removeprefix(prefix): tensor.size
        for name, tensor in saved.items()
        if name.startswith(prefix)
    }
    check_scheme(path, shapes, state, values["groups"], optimizers)
    tensors = {prefix + name: value for name, value in state.items()}
    moments = {name: empty_moments(saved, name, one) for name, one in optimizers.items()}
    for name, of_learner in moments.items():
        tensors |= {f"optimizers.{name}.{key}": value for key, value in of_learner.items()}
    with warnings.catch_warnings():
        # Each rank reads its shards without the others.
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        load(tensors, storage_reader=reader, no_dist=True)
    for name, optimizer in optimizers.items():
        restore_optimizer(optimizer, _nested(moments[name], values["groups"][name]), path)
    ranks = values["ranks"]
    return values["extra"], ranks[rank()] if len(ranks) == world_size() else {}


def _descriptions(reader: SafeReader) -> dict[str, TensorStorageMetadata]:
    """Shape and type of each saved tensor."""
    descriptions: dict[str, TensorStorageMetadata] = {}
    for name, description in reader.read_metadata().state_dict_metadata.items():
        assert isinstance(description, TensorStorageMetadata)
        descriptions[name] = description
    return descriptions


def empty_moments(saved: dict[str, Any], learner: str, optimizer: Optimizer) -> dict[str, Tensor]:
    """Tensors for the saved states of an optimizer, sharded as its parameters are.

    Args:
        saved: name -> description of a saved tensor.
        learner: name of the learner.
        optimizer: optimizer of the learner.
    """
    parameters = parameters_in_order(optimizer)
    prefix = f"optimizers.{learner}."
    moments: dict[str, Tensor] = {}
    for name, tensor in saved.items():
        key = name.removeprefix(prefix)
        # The name of another learner may begin with that of this one.
        if not name.startswith(prefix) or key.count(".") != 1:
            continue
        parameter = parameters[int(key.partition(".")[0])]
        dtype = tensor.properties.dtype
        if tensor.size == parameter.shape and tensor.size:
            moments[key] = torch.zeros_like(parameter, dtype=dtype)
        else:
            moments[key] = torch.zeros(tensor.size, dtype=dtype)
    return moments


def _nested(moments: dict[str, Tensor], groups: list[dict[str, Any]]) -> dict[str, Any]:
    """State of an optimizer from its tensors by name."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, moment in moments.items():
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = moment
    return {"state": state, "param_groups": groups}
