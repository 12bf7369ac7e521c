"""Checkpoints: the state that training changes, in a file with a checksum.

Those of sharded trainings are folders, see ``sharded_checkpoints``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor
from torch.optim import Optimizer

from instil.core import Scheme
from instil.engine.checkpoint_paths import keep_previous
from instil.engine.processes import gather_objects, rank, world_size
from instil.engine.sharding import gather_full, shard_like
from instil.engine.state import trainable_state
from instil.files.atomic import atomic
from instil.files.checksums import DamagedFileError, append_checksum, check_appended

REMEDY = "Delete it to start from the checkpoint before it, or from the beginning"


class CheckpointContents(BaseModel):
    """Content of a checkpoint.

    Attributes:
        scheme: state of the scheme, without fixed teachers.
        optimizers: state of the optimizer of each learner.
        ranks: random state and other values of each rank.
        extra: values that all ranks share.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid", strict=True)

    scheme: dict[str, Tensor]
    optimizers: dict[str, dict[str, Any]]
    ranks: list[dict[str, Any]]
    extra: dict[str, Any]


def save(
    path: Path,
    scheme: Scheme,
    optimizers: dict[str, Optimizer],
    own: dict[str, Any],
    extra: dict[str, Any],
) -> None:
    """Write a checkpoint and keep the one before it. Call it on every rank; the first one writes.

    Args:
        path: file of the checkpoint.
        scheme: scheme; teachers that do not change are not saved.
        optimizers: optimizer of each learner.
        own: picklable values of this rank.
        extra: values that all ranks share.

    Raises:
        OSError: if the file cannot be written; the last undamaged one stays.
    """
    contents = {
        "scheme": gather_full(trainable_state(scheme)),
        "optimizers": {name: gather_full(one.state_dict()) for name, one in optimizers.items()},
        "ranks": gather_objects(own),
        "extra": extra,
    }
    if rank() != 0:
        return
    try:
        with atomic(path) as temporary:
            torch.save(contents, temporary)
            append_checksum(temporary)
            keep_previous(path)
    # torch raises it for an error of the file system.
    except RuntimeError as error:
        raise OSError(
            f"checkpoint {path} could not be written; the last good one stays: {error}"
        ) from error


def read_checkpoint(path: Path, device: torch.device) -> CheckpointContents:
    """Read and verify a checkpoint.

    Args:
        path: file of the checkpoint.
        device: device of the tensors.

    Raises:
        DamagedFileError: if the file is damaged or not a checkpoint of this version. Code in it is
            not run.
    """
    check_appended(path, REMEDY)
    try:
        return CheckpointContents.model_validate(
            torch.load(path, map_location=device, weights_only=True)
        )
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(str(part) for part in problem["loc"]) or "the file"
        raise DamagedFileError(
            f"{path}: not a checkpoint of this version ({field}: {problem['msg']}). {REMEDY}."
        ) from None
    # The reader raises many types of errors for a file of another kind.
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DamagedFileError(
            f"{path}: not a checkpoint ({type(error).__name__}); code in it is not run. {REMEDY}."
        ) from RuntimeError(reason)


def restore(
    contents: CheckpointContents, path: Path, scheme: Scheme, optimizers: dict[str, Optimizer]
) -> dict[str, Any] | None:
    """Copy the contents of a checkpoint into a scheme and its optimizers.

    Args:
        contents: result of ``read_checkpoint``.
        path: file of the checkpoint, for messages.
        scheme: scheme of the same structure, with any number of ranks.
        optimizers: optimizer of each learner.

    Returns:
        ``own`` of ``save`` on this rank; None if the number of ranks differs.

    Raises:
        ValueError: if the checkpoint is of another scheme, which then has not changed.
    """
    state = trainable_state(scheme)
    shapes = {name: saved.shape for name, saved in contents.scheme.items()}
    check_scheme(path, shapes, state, contents.optimizers, optimizers)
    for name, saved in contents.scheme.items():
        state[name].copy_(shard_like(saved, state[name]))
    for name, optimizer in optimizers.items():
        restore_optimizer(optimizer, contents.optimizers[name], path)
    return contents.ranks[rank()] if len(contents.ranks) == world_size() else None


def check_scheme(
    path: Path,
    shapes: Mapping[str, torch.Size],
    state: Mapping[str, Tensor],
    saved_learners: Iterable[str],
    learners: Iterable[str],
) -> None:
    """Check that a checkpoint is of a scheme.

    Args:
        path: the checkpoint, for messages.
        shapes: shape of each tensor in the checkpoint.
        state: tensors of the scheme.
        saved_learners: learners in the checkpoint.
        learners: learners of the scheme.

    Raises:
        ValueError: if tensors, shapes or learners differ.
    """
    if differing := sorted(set(shapes) ^ set(state)):
        raise ValueError(
            f"checkpoint {path} is of another scheme: it differs in {len(differing)} tensors, "
            f"such as '{differing[0]}'"
        )
    for name, shape in shapes.items():
        if shape != state[name].shape:
            both = f"{tuple(shape)} there and {tuple(state[name].shape)} here"
            raise ValueError(f"checkpoint {path} is of another scheme: '{name}' is {both}")
    if differing := sorted(set(saved_learners) ^ set(learners)):
        raise ValueError(f"checkpoint {path} is of another scheme: learner '{differing[0]}'")


def restore_optimizer(optimizer: Optimizer, saved: dict[str, Any], path: Path) -> None:
    """Copy a saved state into an optimizer.

    Args:
        optimizer: optimizer of a learner.
        saved: its ``state_dict`` in the checkpoint, with full tensors or with shards.
        path: the checkpoint, for messages.

    Raises:
        ValueError: if the state does not fit.
    """
    parameters = parameters_in_order(optimizer)
    try:
        for index, moments in saved["state"].items():
            for key, moment in moments.items():
                if isinstance(moment, Tensor) and moment.shape == parameters[index].shape:
                    moments[key] = shard_like(moment, parameters[index])
        optimizer.load_state_dict(saved)
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"checkpoint {path}: the state of an optimizer does not fit ({error}). {REMEDY}."
        ) from error


def parameters_in_order(optimizer: Optimizer) -> list[Tensor]:
    """Return the parameters of an optimizer by their indices in its ``state_dict``."""
    return list(chain.from_iterable(group["params"] for group in optimizer.param_groups))
