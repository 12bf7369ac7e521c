"""Forward pass of a network that reads other keys of the batch, or fewer frames, than its task."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from instil.core import Batch, Outputs

Counts = Mapping[str, tuple[str, int, int]]
"""Name of a count (``frames``) -> key of the input, axis, and number of entries on that axis."""


class NetworkCall:
    """Call of a network with renamed keys and evenly spaced frames, points or views.

    Args:
        call: function ``(model, batch) -> outputs`` of the task.
        reads: key that the task reads -> key of the batch.
        counts: inputs that are shortened.

    Example:
        >>> def task_call(model, batch):
        ...     return {"logits": model(batch["image"])}
        >>> call = NetworkCall(task_call, {"image": "rgb"})
        >>> call(torch.nn.Identity(), {"rgb": torch.ones(1, 2)})
        {'logits': tensor([[1., 1.]])}
    """

    def __init__(
        self,
        call: Callable[..., Outputs],
        reads: Mapping[str, str] | None = None,
        counts: Counts | None = None,
    ):
        self.call = call
        self.reads = dict(reads or {})
        self.counts = dict(counts or {})
        self._takes_roles = "roles" in inspect.signature(call).parameters

    @property
    def keywords(self) -> dict[str, Any]:
        """Options of the call, such as ``size``, ``mean`` and ``std``."""
        return dict(getattr(self.call, "keywords", {}))

    def __call__(
        self, model: nn.Module, batch: Batch, roles: Collection[str] | None = None
    ) -> Outputs:
        """Compute the outputs of the model for its part of the batch.

        Raises:
            ValueError: for a batch without a key of ``reads``, or with too few entries on an axis.
        """
        batch = read_keys(batch, self.reads)
        for name, (key, axis, count) in self.counts.items():
            batch[key] = evenly_spaced(batch[key], axis, count, name)
        options = {"roles": roles} if self._takes_roles else {}
        return self.call(model, batch, **options)


def reads_of(call: Callable[..., Any]) -> dict[str, str]:
    """Return ``reads`` of the call of a network: empty for one that reads the keys of its task."""
    return dict(getattr(call, "reads", {}))


def read_keys(batch: Batch, reads: Mapping[str, str]) -> Batch:
    """Return a batch with the keys that the task of a network reads.

    Args:
        batch: batch of the data.
        reads: key that the task reads -> key of the batch.

    Returns:
        A copy. Further keys stay.

    Raises:
        ValueError: for a key that the batch does not have.

    Example:
        >>> read_keys({"rgb": 1, "label": 2}, {"image": "rgb"})
        {'rgb': 1, 'label': 2, 'image': 1}
    """
    renamed = dict(batch)
    for key, source in reads.items():
        if source not in batch:
            raise ValueError(
                f"reads.{key}: the batch has no '{source}'. Expected one of {', '.join(batch)}"
            )
        renamed[key] = batch[source]
    return renamed


def write_keys(batch: Batch, reads: Mapping[str, str]) -> Batch:
    """Return a batch with the keys of the data: the inverse of ``read_keys``.

    Example:
        >>> write_keys({"image": 1}, {"image": "rgb"})
        {'image': 1, 'rgb': 1}
    """
    return batch | {source: batch[key] for key, source in reads.items() if key in batch}


def evenly_spaced(value: Tensor, axis: int, count: int, name: str = "frames") -> Tensor:
    """Select the entries in the middle of ``count`` equal parts of an axis.

    Args:
        value: tensor with at least ``axis + 1`` dimensions.
        axis: axis of the frames, points or views.
        count: number of entries of the result.
        name: name of the entries, for messages.

    Returns:
        ``value`` with ``count`` entries on ``axis``.

    Raises:
        ValueError: if there are fewer than ``count`` entries.

    Example:
        >>> evenly_spaced(torch.arange(8), 0, 2)
        tensor([2, 6])
    """
    available = value.shape[axis] if value.ndim > axis else 0
    if available < count:
        raise ValueError(
            f"input.{name}: too many. Expected at most the {available} {name} of the data, "
            f"got {count}"
        )
    if available == count:
        return value
    # Plain numbers, so that an exported graph has constant indices.
    indices = [(2 * index + 1) * available // (2 * count) for index in range(count)]
    return value.index_select(axis, torch.tensor(indices, device=value.device))
