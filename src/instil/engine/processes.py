"""Processes of one training, and communication between them."""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from instil.engine.devices import local_device

TIMEOUT_VARIABLE = "INSTIL_RANK_TIMEOUT"
DEFAULT_TIMEOUT = 600.0
# Parts of the messages about a lost process: the back ends raise a plain RuntimeError.
LOST_PROCESS_MARKS = (
    "gloo",
    "NCCL",
    "Connection closed by peer",
    "Connection reset by peer",
    "Timed out",
)


class RankError(RuntimeError):
    """Another process of the same training ended, or no longer responds."""


def world_size() -> int:
    """Return the number of processes; 1 without ``torchrun``."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Return the index of this process."""
    return dist.get_rank() if dist.is_initialized() else 0


def init_distributed(device: str = "auto") -> torch.device:
    """Join the processes that ``torchrun`` started, if there are several.

    A process that ends without an error leaves them.

    Args:
        device: name of a torch device; ``auto``: the device of the recipe, or CUDA or MPS if
            available.

    Returns:
        The device of this process.

    Raises:
        ValueError: if the environment variable ``INSTIL_RANK_TIMEOUT`` is not a number of seconds.
    """
    own = local_device(device)
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and not dist.is_initialized():
        backend = "nccl" if own.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=timedelta(seconds=_timeout()))
        atexit.register(_leave)
    return own


def wait_for_ranks() -> None:
    """Wait for all processes, so that each one sees the files of the first."""
    if world_size() > 1:
        dist.barrier()


def broadcast_object(value: Any) -> Any:
    """Return the value of the first process.

    Args:
        value: picklable value.
    """
    if world_size() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def run_on_first_rank(action: Callable[[], None]) -> None:
    """Run a function in the first process only, and raise its error in every process.

    Args:
        action: function; it must not communicate with other processes.

    Raises:
        Exception: the exception of ``action``.
    """
    error: Exception | None = None
    if rank() == 0:
        try:
            action()
        except Exception as raised:
            error = raised
    if (error := broadcast_object(error)) is not None:
        raise error


def gather_objects(value: Any) -> list[Any]:
    """Return the values of all processes in order.

    Args:
        value: picklable value of this process.
    """
    values: list[Any] = [value]
    if world_size() > 1:
        values = [None] * world_size()
        dist.all_gather_object(values, value)
    return values


@contextlib.contextmanager
def clear_rank_errors(advice: str) -> Iterator[None]:
    """Replace the errors of a lost process by one clear message.

    Args:
        advice: remedy for the user, without a full stop.

    Raises:
        RankError: if another process ended, or did not respond in time.
    """
    try:
        yield
    except BaseException as error:
        # The others may wait in a collective operation, and to leave would be to wait for them.
        atexit.unregister(_leave)
        lost = isinstance(error, dist.DistError) or (
            isinstance(error, RuntimeError)
            and any(mark in str(error) for mark in LOST_PROCESS_MARKS)
        )
        if world_size() == 1 or not lost:
            raise
        raise RankError(
            f"rank {rank()}: another of the {world_size()} processes ended, or did not respond "
            f"within {_timeout():g} s ({TIMEOUT_VARIABLE}). Its error is above. {advice}."
        ) from error


def sum_over_ranks(values: Tensor) -> Tensor:
    """Sum a tensor over processes, in place."""
    if world_size() > 1:
        dist.all_reduce(values)
    return values


def max_over_ranks(value: int, device: torch.device) -> int:
    """Return the maximum of an integer over processes.

    Args:
        value: value of this process.
        device: device that the processes communicate on.
    """
    if world_size() == 1:
        return value
    values = torch.tensor([value], device=device)
    dist.all_reduce(values, dist.ReduceOp.MAX)
    return int(values)


def broadcast_tensors(tensors: Sequence[Tensor]) -> None:
    """Overwrite tensors with those of the first process."""
    if world_size() > 1:
        for tensor in tensors:
            dist.broadcast(tensor.data, 0)


def average_over_ranks(tensors: Sequence[Tensor]) -> None:
    """Average tensors over processes, in place."""
    if world_size() > 1:
        for tensor in tensors:
            dist.all_reduce(tensor)
            tensor /= world_size()


def sum_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Sum every gradient over processes.

    A process without a gradient counts as zeros. None stays None if no process has a gradient.
    """
    # One message for all gradients and for the flags of the processes that have them.
    used = torch.tensor(
        [float(p.grad is not None) for p in parameters], device=parameters[0].device
    )
    grads = [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters]
    flat = torch.cat([used, *grads])
    dist.all_reduce(flat)
    used, *grads = torch.split(flat, [len(parameters), *[p.numel() for p in parameters]])
    for parameter, any_rank, grad in zip(parameters, used.tolist(), grads, strict=True):
        parameter.grad = grad.view_as(parameter).clone() if any_rank else None


def _leave() -> None:
    """Destroy the process group, unless an uncaught exception ends this process.

    Threads of gloo that still hold tensors when the interpreter ends abort the process. They end
    with the last reference to the group, and sharded networks in reference cycles have some.
    """
    if dist.is_initialized() and getattr(sys, "last_value", None) is None:
        dist.destroy_process_group()
        gc.collect()


def _timeout() -> float:
    text = os.environ.get(TIMEOUT_VARIABLE, "")
    try:
        seconds = float(text or DEFAULT_TIMEOUT)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e9:
        raise ValueError(f"{TIMEOUT_VARIABLE}: Expected a number of seconds above 0, got '{text}'")
    return seconds
