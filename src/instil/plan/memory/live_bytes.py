"""Bytes of tensors that exist at a time."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

from torch import Tensor, UntypedStorage
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Context that counts the bytes of tensors that are created in it, while they exist.

    Memory that a kernel allocates and frees itself is not counted.

    Args:
        existing: tensors that are not counted.

    Attributes:
        now: bytes that exist now.
        peak: largest number of bytes that existed at a time.
    """

    def __init__(self, existing: Iterable[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = 0
        self.peak = 0
        self._sizes: dict[int, int] = {}
        for tensor in existing:
            self.exclude(tensor)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._count(leaf.untyped_storage(), leaf.untyped_storage().nbytes())
        self.peak = max(self.peak, self.now)
        return result

    def exclude(self, tensor: Tensor) -> None:
        """Do not count a tensor, from now on.

        Args:
            tensor: tensor, which may be counted already.
        """
        storage = tensor.untyped_storage()
        self.now -= self._sizes.pop(storage._cdata, 0)
        self._count(storage, 0)

    def _count(self, storage: UntypedStorage, size: int) -> None:
        address = storage._cdata
        if address in self._sizes:
            return
        self._sizes[address] = size
        self.now += size
        # The address is free for another storage as soon as this one is deleted.
        weakref.finalize(storage, self._remove, address)

    def _remove(self, address: int) -> None:
        self.now -= self._sizes.pop(address, 0)
