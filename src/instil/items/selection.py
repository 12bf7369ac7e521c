"""Selection and conversion of outputs before a loss reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from instil.items.batch import Batch, Outputs, first_tensor, to_float32
from instil.roles.signals import SHARED_ROLES

CLOCK_KEYS = ("step", "progress", "seed")
"""Batch entries that belong to the step."""

ITEM_KEYS = ("label", "index", "view")
"""Batch entries that belong to items."""

Selection = Callable[[Any, Outputs, Outputs, Batch], tuple[Outputs, Outputs, Batch]]
"""Function of an objective, both outputs and the batch that selects what the objective reads."""


def all_outputs(
    objective: Any, student: Outputs, teacher: Outputs, batch: Batch
) -> tuple[Outputs, Outputs, Batch]:
    """Selection of everything.

    Args:
        objective: objective that reads the outputs.
        student: student outputs.
        teacher: teacher outputs.
        batch: batch of the step.
    """
    return student, teacher, batch


def outputs_to_float32(outputs: Outputs, roles: Iterable[str]) -> Outputs:
    """Outputs whose ``roles`` are in float32 or better; roles that are not there are ignored."""

    def converted(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(converted, value))
        return to_float32(value) if isinstance(value, Tensor) else value

    return outputs | {role: converted(outputs[role]) for role in roles if role in outputs}


class CountedRows:
    """Selection of the rows of counted items, gathered from all processes.

    Args:
        counted: mask of the items of this process.
        has_uncounted: whether an item may not count. If none can, the mask is not read, because
            that would wait for the device.
        gather: function that gathers rows from all processes; None: this process only.
    """

    def __init__(
        self, counted: Tensor, has_uncounted: bool, gather: Callable[[Tensor], Tensor] | None
    ) -> None:
        self.counted = counted
        self.has_uncounted = has_uncounted
        self.gather = gather

    def select(self, value: Any, role: str = "") -> Any:
        """Rows of one value; shared roles are returned unchanged."""
        if role in SHARED_ROLES:
            return value
        if isinstance(value, tuple):
            return tuple(self.select(part) for part in value)
        if isinstance(value, dict):  # outputs of one of several teachers
            return {name: self.select(part, name) for name, part in value.items()}
        if self.has_uncounted:
            has_positions = value.shape[: self.counted.ndim] == self.counted.shape
            value = value[self.counted if has_positions else self.counted.flatten(1).any(1)]
        return value if self.gather is None else self.gather(value)

    def outputs(self, outputs: Outputs, roles: Iterable[str]) -> Outputs:
        """Rows of some roles, without the others."""
        return {role: self.select(outputs[role], role) for role in roles}

    def batch(self, batch: Batch, keys: Iterable[str] = ()) -> Batch:
        """Rows of the entries that belong to items, and the entries of the step.

        Args:
            batch: the batch.
            keys: further entries that belong to items.

        Raises:
            ValueError: for a key that is not a tensor of the batch.
        """
        for key in keys:
            if not isinstance(batch.get(key), Tensor):
                raise ValueError(
                    f"batch_keys: the batch has no tensor '{key}'. Expected one of "
                    f"{', '.join(batch)}"
                )
        item_keys = dict.fromkeys((*ITEM_KEYS, *keys))
        rows: Batch = {key: self.select(batch[key]) for key in item_keys if key in batch}
        if "valid" in batch and batch["valid"].ndim > self.counted.ndim:
            # Items are samples, and some of their positions are not valid.
            rows["valid"] = self.select(batch["valid"])
        return rows | {key: batch[key] for key in CLOCK_KEYS if key in batch}


def has_rows(outputs: Outputs) -> bool:
    """Whether the first role that belongs to samples has rows."""
    value = next(value for role, value in outputs.items() if role not in SHARED_ROLES)
    return len(value[0] if isinstance(value, tuple) else value) > 0


def mean_of_positions(factor: Tensor, valid: Tensor) -> Tensor:
    """Mean (N,) of ``factor`` (N, ...) over the valid positions of each sample.

    Args:
        factor: (N, ...).
        valid: (N, ...) to select positions, or another shape to use all.

    Returns:
        (N,).
    """
    counts = valid if valid.shape == factor.shape else torch.ones_like(factor)
    total = counts.flatten(1).sum(1).clamp_min(1)
    return torch.where(counts > 0, factor * counts, 0.0).flatten(1).sum(1) / total


def differentiable_input(batch: Batch) -> Batch:
    """First tensor of the batch as a leaf that requires a gradient, under its key.

    Raises:
        ValueError: if the tensor is not floating-point.
    """
    first = first_tensor(batch)
    key = next(key for key, value in batch.items() if value is first)
    if not first.is_floating_point():
        raise ValueError(
            f"an objective reads the gradient by the input, but '{key}', the batch's first "
            f"tensor, is {first.dtype}"
        )
    return {key: first.detach().requires_grad_()}


def rows_of(name: str, rows: dict[str, Tensor]) -> dict[str, Tensor]:
    """Entries ``name.key`` of ``rows``, by key."""
    prefix = f"{name}."
    own = {key: value for key, value in rows.items() if key.startswith(prefix)}
    return {key.removeprefix(prefix): value for key, value in own.items()}
