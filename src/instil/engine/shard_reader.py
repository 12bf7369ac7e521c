"""Reader of shards that ``torch.distributed.checkpoint`` wrote, which runs no code of a file."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata

SAFE_CLASSES = {
    "torch.distributed.checkpoint.metadata": {
        "ChunkStorageMetadata",
        "Metadata",
        "MetadataIndex",
        "StorageMeta",
        "TensorProperties",
        "TensorStorageMetadata",
        "_MEM_FORMAT_ENCODING",
    },
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch.serialization": {"_get_layout"},
    "pathlib": {"PosixPath", "WindowsPath"},
}
"""Classes that the description of shards has, by module."""


class SafeUnpickler(pickle.Unpickler):
    """Reader of the description of shards, which runs no other code."""

    def find_class(self, module: str, name: str) -> Any:
        """Return a class that the description has.

        Raises:
            pickle.UnpicklingError: for any other object.
        """
        is_type = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        is_size = (module, name) == ("torch", "Size")
        if is_type or is_size or name in SAFE_CLASSES.get(module, ()):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} is not part of a checkpoint")


class SafeReader(FileSystemReader):
    """Reader of shards that runs no code of a file."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """Return the description of all shards."""
        with (Path(self.path) / ".metadata").open("rb") as file:
            metadata: Metadata = SafeUnpickler(file).load()
        if metadata.storage_meta is not None:
            metadata.storage_meta.load_id = self.load_id
        return metadata
