"""Measurement of the tensor memory of a computation."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class PeakMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Context manager that measures the largest size of new tensors alive at once, on any device.

    Temporary memory inside an operation is not included.

    Attributes:
        now: bytes of new tensors that are alive.
        peak: largest value of ``now`` so far.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = 0
        self.peak = 0
        self._addresses: set[int] = set()

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Any = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        # Results of in-place operations and views share the storage of an argument.
        before = {storage.data_ptr() for storage in _storages((args, kwargs))}
        result = func(*args, **(kwargs or {}))
        for storage in _storages(result):
            address = storage.data_ptr()
            if address not in before and address not in self._addresses:
                self._addresses.add(address)
                self.now += storage.nbytes()
                weakref.finalize(storage, self._freed, address, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return result

    def _freed(self, address: int, size: int) -> None:
        self._addresses.discard(address)
        self.now -= size


def _storages(value: Any) -> list[Any]:
    return [part.untyped_storage() for part in tree_leaves(value) if isinstance(part, Tensor)]
