"""Processes of one training: how they find each other, add up tensors and gather rows."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

TIMEOUT_VARIABLE = "INSTIL_RANK_TIMEOUT"
DEFAULT_TIMEOUT = 600.0
# How the back ends describe a process that is gone or stuck; they raise a plain RuntimeError.
LOST_PROCESS_MARKS = (
    "gloo",
    "NCCL",
    "Connection closed by peer",
    "Connection reset by peer",
    "Timed out",
)


class RankError(RuntimeError):
    """Another process of the same training ended or no longer answers."""


def world_size() -> int:
    """Number of processes that take part, 1 without ``torchrun``."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Index of this process."""
    return dist.get_rank() if dist.is_initialized() else 0


def init_distributed(device: str = "auto") -> torch.device:
    """Join the processes that ``torchrun`` started, if there are several.

    Args:
        device: name of a torch device; ``auto`` takes that of the recipe, or CUDA or MPS where there is one.

    Returns:
        The device of this process.

    Raises:
        ValueError: if the environment variable ``INSTIL_RANK_TIMEOUT`` is no number of seconds.
    """
    own = _device(device)
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and not dist.is_initialized():
        backend = "nccl" if own.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=timedelta(seconds=_timeout()))
    return own


def wait_for_ranks() -> None:
    """Wait until every process is here: files that the first process wrote are there for all."""
    if world_size() > 1:
        dist.barrier()


def broadcast_object(value: Any) -> Any:
    """The value that the first process has; it must be picklable."""
    if world_size() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def run_on_first_rank(action: Callable[[], None]) -> None:
    """Do something in the first process only; if it fails, it fails in every process.

    Args:
        action: must not communicate with other processes.

    Raises:
        Exception: whatever ``action`` raised.
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
    """The values of all processes in order; they must be picklable."""
    values: list[Any] = [value]
    if world_size() > 1:
        values = [None] * world_size()
        dist.all_gather_object(values, value)
    return values


@contextlib.contextmanager
def clear_rank_errors(advice: str) -> Iterator[None]:
    """Turn the errors of a lost process into one sentence.

    Args:
        advice: what the user can do, without a full stop.

    Raises:
        RankError: if another process ended, or did not answer in time.
    """
    try:
        yield
    except RuntimeError as error:
        lost = isinstance(error, dist.DistError) or any(
            mark in str(error) for mark in LOST_PROCESS_MARKS
        )
        if world_size() == 1 or not lost:
            raise
        raise RankError(
            f"rank {rank()}: another of the {world_size()} processes ended, or did not answer within "
            f"{_timeout():g} s ({TIMEOUT_VARIABLE}). Look for its error above. {advice}."
        ) from error


def sum_over_ranks(values: Tensor) -> Tensor:
    """Sum a tensor over processes, in place."""
    if world_size() > 1:
        dist.all_reduce(values)
    return values


def max_over_ranks(number: int, device: torch.device) -> int:
    """The largest of the processes' numbers."""
    if world_size() == 1:
        return number
    numbers = torch.tensor([number], device=device)
    dist.all_reduce(numbers, dist.ReduceOp.MAX)
    return int(numbers)


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

    A process without a gradient counts as zeros; None stays None where no process has one.
    """
    used = torch.tensor(
        [float(p.grad is not None) for p in parameters], device=parameters[0].device
    )
    flat = torch.cat(
        [used, *[(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters]]
    )
    dist.all_reduce(flat)
    used, *grads = torch.split(flat, [len(parameters), *[p.numel() for p in parameters]])
    for parameter, any_rank, grad in zip(parameters, used.tolist(), grads, strict=True):
        parameter.grad = grad.view_as(parameter).clone() if any_rank else None


class _GatherRows(torch.autograd.Function):
    """Rows of all processes in order; backward sums the gradients of all losses by one's rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        lengths = [
            torch.zeros(1, dtype=torch.long, device=rows.device) for _ in range(world_size())
        ]
        dist.all_gather(lengths, torch.tensor([len(rows)], device=rows.device))
        ctx.lengths = [int(length) for length in lengths]
        padded = rows.new_zeros((max(ctx.lengths), *rows.shape[1:]))
        padded[: len(rows)] = rows
        parts = [torch.zeros_like(padded) for _ in range(world_size())]
        dist.all_gather(parts, padded)
        return torch.cat([part[:length] for part, length in zip(parts, ctx.lengths, strict=True)])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        total = grads[0].contiguous()
        dist.all_reduce(total)
        return torch.split(total, ctx.lengths)[rank()]


def gather_rows(rows: Tensor) -> Tensor:
    """Rows of all processes in global order, differentiable."""
    if world_size() == 1:
        return rows
    if rows.dtype == torch.bool:
        return gather_rows(rows.byte()).bool()
    gathered: Tensor = _GatherRows.apply(rows)
    return gathered


class _SumOverRanks(torch.autograd.Function):
    """Sum over processes; its derivative is the sum of the gradients, as often as one likes."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.detach().clone().contiguous()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        total: Tensor = _SumOverRanks.apply(grads[0])
        return total


def differentiable_sum(values: Tensor) -> Tensor:
    """Sum a tensor over processes, differentiable twice."""
    total: Tensor = _SumOverRanks.apply(values)
    return total


@contextlib.contextmanager
def default_device(name: str) -> Iterator[None]:
    """Inside, ``auto`` means the device ``name`` in this process; ``auto`` itself changes nothing."""
    token = _DEFAULT_DEVICE.set(name)
    try:
        yield
    finally:
        _DEFAULT_DEVICE.reset(token)


def check_device(name: str) -> None:
    """Check that a device is there.

    Args:
        name: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.

    Raises:
        ValueError: with the devices that are there.
    """
    present = ["auto", "cpu"]
    if torch.cuda.is_available():
        present += ["cuda", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        present.append("mps")
    if name not in present:
        raise ValueError(
            f"device: this machine has no such device. Expected {', '.join(present)}, got {name}"
        )
    if ":" in name and int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise ValueError(
            f"device: several processes cannot share one device. Expected auto or "
            f"{name.partition(':')[0]}, got {name}. Each process then takes its own"
        )


_DEFAULT_DEVICE: ContextVar[str] = ContextVar("default_device", default="auto")


def _device(name: str) -> torch.device:
    name = _DEFAULT_DEVICE.get() if name == "auto" else name
    if name == "cuda" or (name == "auto" and torch.cuda.is_available()):
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    if name != "auto":
        return torch.device(name)
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _timeout() -> float:
    text = os.environ.get(TIMEOUT_VARIABLE, "")
    try:
        seconds = float(text or DEFAULT_TIMEOUT)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e9:
        raise ValueError(f"{TIMEOUT_VARIABLE}: expected a number of seconds above 0, got '{text}'")
    return seconds
