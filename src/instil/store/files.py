"""Files of tensors, compressed, with the checksum of what they hold."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import fsspec  # type: ignore[import-untyped]
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from instil.atomic import atomic
from instil.store.outputs import Tensors

LEVEL = 3  # more costs time and gains little: these are noisy numbers


def _zstandard() -> object:
    try:
        import zstandard
    except ImportError as error:
        raise ImportError(
            'stores of teachers\' answers need zstandard: pip install "instil[record]"'
        ) from error
    return zstandard


def write(path: Path, tensors: Tensors) -> str:
    """Write a file whole or not at all; returns the SHA-256 of its content before compression."""
    data = save({name: tensor.contiguous().cpu() for name, tensor in tensors.items()})
    with atomic(path) as temporary:
        temporary.write_bytes(_zstandard().ZstdCompressor(level=LEVEL).compress(data))  # type: ignore[attr-defined]
    return hashlib.sha256(data).hexdigest()


def fetched(url: str, checksum: str) -> Path:
    """The content of a file at a path or URL, unpacked once into ``$INSTIL_CACHE`` or ``~/.cache/instil`` under its checksum.

    Raises ValueError where it is damaged, FileNotFoundError where it is not there.
    """
    cache = Path(os.environ.get("INSTIL_CACHE") or Path.home() / ".cache" / "instil")
    place = cache / "stores" / f"{checksum}.safetensors"
    if place.exists():
        return place
    zstandard = _zstandard()
    try:
        with fsspec.open(url, "rb") as file:
            data = zstandard.ZstdDecompressor().decompress(file.read())  # type: ignore[attr-defined]
    except FileNotFoundError:
        raise FileNotFoundError(
            f"the store lacks {url}; its manifest names it, so it was lost: record again, which makes what is missing"
        ) from None
    except zstandard.ZstdError as error:  # type: ignore[attr-defined]
        raise ValueError(
            f"{url} is damaged ({error}); delete it and record again, which makes what is missing"
        ) from error
    if (found := hashlib.sha256(data).hexdigest()) != checksum:
        raise ValueError(
            f"{url} is damaged: its checksum is {found[:12]}, the manifest says {checksum[:12]}; delete it and record again"
        )
    with atomic(place) as temporary:
        temporary.write_bytes(data)
    return place


def mapped(path: Path) -> dict[str, Tensor]:
    """The tensors of an unpacked file, mapped into memory: only what is read of them is loaded."""
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
