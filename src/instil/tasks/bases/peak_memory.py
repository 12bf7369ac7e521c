"""Measurement of the tensor memory of a computation."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class PeakMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Context manager that measures the largest size of new tensors alive at once, on any device.

    Temporary memory inside an operation is not included. Fake tensors count as real ones.

    Attributes:
        now: bytes of new tensors that are alive.
        peak: largest value of ``now`` so far.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = 0
        self.peak = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Any = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        # Results of in-place operations and views share the storage of an argument.
        before = {storage._cdata for storage in _storages((args, kwargs))}
        result = func(*args, **(kwargs or {}))
        for storage in _storages(result):
            address = storage._cdata
            if address not in before and address not in self._sizes:
                self._sizes[address] = storage.nbytes()
                self.now += storage.nbytes()
                # The address is free for another storage as soon as this one is deleted.
                weakref.finalize(storage, self._remove, address)
        self.peak = max(self.peak, self.now)
        return result

    def exclude(self, tensor: Tensor) -> None:
        """Do not count a tensor, from now on.

        Args:
            tensor: tensor that was created in this context.
        """
        for storage in _storages(tensor):
            self._remove(storage._cdata)

    def _remove(self, address: int) -> None:
        self.now -= self._sizes.pop(address, 0)


def _storages(value: Any) -> list[Any]:
    """Storages of tensors; a sparse one has none, and its indices and values are other tensors."""
    tensors = [part for part in tree_leaves(value) if isinstance(part, Tensor)]
    return [tensor.untyped_storage() for tensor in tensors if tensor.layout == torch.strided]
