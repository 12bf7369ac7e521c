"""Checkpoints: all that training changes, in one file with a checksum, beside the one before it."""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor
from torch.optim import Optimizer

from instil.cards import has_tag
from instil.core import Scheme, Teacher
from instil.engine.processes import broadcast_object, gather_objects, rank, world_size
from instil.engine.sharding import gather_full, shard_like
from instil.files.atomic import atomic
from instil.files.checksums import DamagedFileError, append_checksum, check_appended

REMEDY = "Delete it, and the training starts from the checkpoint before it or anew"
log = logging.getLogger("instil")


class CheckpointContents(BaseModel):
    """What a checkpoint holds: the scheme's state, its optimizers, a dictionary of each rank, and ``extra``."""

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid", strict=True)

    scheme: dict[str, Tensor]
    optimizers: dict[str, dict[str, Any]]
    ranks: list[dict[str, Any]]
    extra: dict[str, Any]


def previous_path(path: Path) -> Path:
    """Where the checkpoint before the newest one is kept."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def delete_checkpoint_files(path: Path) -> None:
    """Remove a checkpoint and the one before it; of several ranks only the first does."""
    if rank() == 0:
        path.unlink(missing_ok=True)
        previous_path(path).unlink(missing_ok=True)


def newest_intact(path: Path) -> Path | None:
    """The newest undamaged checkpoint at ``path``, the same on every rank.

    Args:
        path: of the newest checkpoint; the one before it lies beside it.

    Returns:
        Its path, or None if there is none. A damaged file is named in the log.
    """
    return broadcast_object(_newest_good(path) if rank() == 0 else None)  # type: ignore[no-any-return]


def _newest_good(path: Path) -> Path | None:
    for candidate in (path, previous_path(path)):
        if not candidate.exists():
            continue
        try:
            check_appended(candidate, "It is not used")
        except (DamagedFileError, OSError) as error:
            log.warning("%s", error)
        else:
            if candidate != path:
                log.warning("%s: training goes on from the checkpoint before it", path)
            return candidate
    if path.exists():
        log.warning("%s: there is no good checkpoint; this training starts anew", path)
    return None


def save(
    path: Path,
    scheme: Scheme,
    optimizers: dict[str, Optimizer],
    own: dict[str, Any],
    extra: dict[str, Any],
) -> None:
    """Write a checkpoint; every rank takes part, the first writes, and the last good one is kept.

    Args:
        path: the file.
        scheme: its state, without teachers that do not change.
        optimizers: by learner.
        own: what this rank needs again; picklable.
        extra: what all ranks share.

    Raises:
        OSError: if the file cannot be written; the last good one stays.
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
            _keep_previous(path)
    except RuntimeError as error:  # what torch makes of an error of the file system
        raise OSError(
            f"checkpoint {path} could not be written; the last good one stays: {error}"
        ) from error


def _keep_previous(path: Path) -> None:
    """Give the newest checkpoint a second name, so that at every moment one of both is whole."""
    if not path.exists():
        return
    link = previous_path(path).with_name(f".{path.stem}.{os.getpid():08d}.part{path.suffix}")
    try:
        os.link(path, link)
        os.replace(link, previous_path(path))
    except OSError:  # a file system without hard links
        os.replace(path, previous_path(path))


def read(path: Path, device: torch.device) -> CheckpointContents:
    """Read and verify a checkpoint.

    Args:
        path: the file.
        device: where its tensors go.

    Returns:
        Its contents.

    Raises:
        DamagedFileError: if the file is damaged or no checkpoint of this version; code in it is
            not run.
    """
    check_appended(path, REMEDY)
    try:
        return CheckpointContents.model_validate(
            torch.load(path, map_location=device, weights_only=True)
        )
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"]) or "the whole"
        raise DamagedFileError(
            f"{path}: not a checkpoint of this version ({where}: {problem['msg']}). {REMEDY}."
        ) from None
    except Exception as error:  # whatever the reader meets in a file that is none
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DamagedFileError(
            f"{path}: not a checkpoint ({type(error).__name__}); code in it is not run. {REMEDY}."
        ) from RuntimeError(reason)


def restore(
    contents: CheckpointContents, path: Path, scheme: Scheme, optimizers: dict[str, Optimizer]
) -> dict[str, Any] | None:
    """Copy the contents of a checkpoint into a scheme and its optimizers.

    Args:
        contents: of ``read``.
        path: for messages.
        scheme: a scheme like the saved one, under any number of ranks.
        optimizers: by learner.

    Returns:
        What ``save`` was given as ``own`` on this rank, None under another number of ranks.

    Raises:
        ValueError: if the checkpoint is of another scheme; nothing has changed then.
    """
    state = trainable_state(scheme)
    if differing := sorted(set(contents.scheme) ^ set(state)):
        raise ValueError(
            f"checkpoint {path} is of another scheme: it differs in {len(differing)} tensors, "
            f"such as '{differing[0]}'"
        )
    for name, saved in contents.scheme.items():
        if saved.shape != state[name].shape:
            shapes = f"{tuple(saved.shape)} there and {tuple(state[name].shape)} here"
            raise ValueError(f"checkpoint {path} is of another scheme: '{name}' is {shapes}")
    if differing := sorted(set(contents.optimizers) ^ set(optimizers)):
        raise ValueError(f"checkpoint {path} is of another scheme: learner '{differing[0]}'")
    for name, saved in contents.scheme.items():
        state[name].copy_(shard_like(saved, state[name]))
    for name, optimizer in optimizers.items():
        _restore_optimizer(optimizer, contents.optimizers[name], path)
    return contents.ranks[rank()] if len(contents.ranks) == world_size() else None


def _restore_optimizer(optimizer: Optimizer, saved: dict[str, Any], path: Path) -> None:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
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


def fixed_teachers(scheme: Scheme) -> tuple[str, ...]:
    """Prefixes of the names of all teachers that training does not change."""
    return tuple(
        f"{name}."
        for name, part in scheme.named_modules()
        if isinstance(part, Teacher) and not has_tag(part, "stateful")
    )


def trainable_state(scheme: Scheme) -> dict[str, Tensor]:
    """The state of what training changes: all but the teachers that stay."""
    fixed = fixed_teachers(scheme)
    return {
        name: value for name, value in scheme.state_dict().items() if not name.startswith(fixed)
    }


def random_state(generators: Sequence[torch.Generator]) -> dict[str, Any]:
    """The random states of this process."""
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "generators": [generator.get_state() for generator in generators],
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: dict[str, Any], generators: Sequence[torch.Generator]) -> None:
    """Set what ``random_state`` returned."""
    torch.set_rng_state(state["torch"].cpu())
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    for generator, own in zip(generators, state["generators"], strict=False):
        generator.set_state(own.cpu())
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())
