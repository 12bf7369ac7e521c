"""Failed trials that another attempt may complete, such as those of a full memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from instil.remote.claims import WaitStoppedError
from instil.remote.connection import ServerUnreachableError
from instil.search.trials import TRIALS, read_result_file

MOST_ATTEMPTS = 3
"""Attempts of a trial in all, since an arm may never fit into the memory."""

TRANSIENT = (
    torch.OutOfMemoryError,
    MemoryError,
    OSError,
    ServerUnreachableError,
    WaitStoppedError,
)
"""Errors that depend on the state of the machine, the network or a server."""

TRANSIENT_TEXTS = ("out of memory", "can't allocate memory", "not enough memory", "loader worker")
"""Parts of the messages of such errors that PyTorch raises as ``RuntimeError``."""


def is_transient(error: BaseException) -> bool:
    """Whether an error, or one that caused it, may be absent in another attempt.

    Errors of the recipe, such as a loss that is not finite, are the same in every attempt.

    Example:
        >>> is_transient(RuntimeError("CUDA error: out of memory")), is_transient(ValueError("lr"))
        (True, False)
    """
    return any(isinstance(one, TRANSIENT) or _has_transient_text(one) for one in _causes(error))


def set_aside_transient(folder: Path) -> list[str]:
    """Rename the results of transient failures, so that their trials are trained again.

    A trial is trained ``MOST_ATTEMPTS`` times at most. Its last failure then stays its result.

    Args:
        folder: folder of a search that no other process works on. Processes that share a search
            must read the same results.

    Returns:
        Arms of these trials, without repetitions.
    """
    arms: dict[str, None] = {}
    for path in sorted((folder / TRIALS).glob("*.json")):
        result = read_result_file(path)
        # Results that were set aside have another name than their key.
        if result is None or path.stem != result.get("key") or not result.get("is_transient"):
            continue
        num_earlier = len(list(path.parent.glob(f"{path.stem}.failed-*.json")))
        if num_earlier + 1 < MOST_ATTEMPTS:
            path.rename(path.with_name(f"{path.stem}.failed-{num_earlier + 1}.json"))
            arms[result["arm"]] = None
    return list(arms)


def failed_outcome(error: RuntimeError) -> dict[str, Any]:
    """Return the entries of the result of a failed trial."""
    transient = {"is_transient": True} if is_transient(error) else {}
    return {"status": "failed", "error": str(error), **transient}


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and the errors that caused it."""
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__


def _has_transient_text(error: BaseException) -> bool:
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(part in text for part in TRANSIENT_TEXTS)
