"""SHA-256 of data sets, in bounded time."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from instil.data.images import ArrayData, LazyData
from instil.data.item_data import ItemData
from instil.data.labelled_pixels import LabelledPixels
from instil.data.pictures import Files, Pictures
from instil.data.ragged_rows import RaggedRows
from instil.data.samples import Samples, TensorData
from instil.data.streams import Stream

LARGEST_BYTES = 1 << 30
"""Bytes of inputs that are read from one split, which takes about a second."""

FEWEST_SAMPLES = 64
"""Number of samples that are read from larger splits at least."""

MOST_COMPUTED = 2048
"""Number of samples that are read at most from a source that decodes or computes its inputs."""

ROWS = 256
"""Number of samples in memory at the same time."""

_digests: WeakKeyDictionary[Samples, str] = WeakKeyDictionary()


def sample_digest(samples: Samples) -> str:
    """Return the SHA-256 of all labels, boxes and edges, and of all inputs up to 1 GiB.

    For larger inputs, 1 GiB of evenly spread samples is read. For picture files, the digest is of
    the bytes of the files, and of the sizes of all files. Sources that decode or compute their
    inputs in another way are read at 2048 samples at most, streams at their first ones.

    Args:
        samples: samples of any task. They must not change afterwards: the digest is cached.

    Returns:
        64 hexadecimal digits.
    """
    if samples not in _digests:
        _digests[samples] = _digest(samples)
    return _digests[samples]


def _digest(samples: Samples) -> str:
    if isinstance(samples, Stream):
        # Reading a stream to its end may take as long as a training.
        source = repr(
            (samples.fingerprint, samples.num_shards, sorted(samples.num_left_out.items()))
        )
        return hashlib.sha256(f"{source}{_digest(samples.head)}".encode()).hexdigest()
    if isinstance(samples, RaggedRows):
        # Batches depend on their longest row; the tokens themselves have a digest.
        return _with_values(samples.content(), samples).hexdigest()
    digest = _with_values((samples.classes, len(samples)), samples)
    files = _files(samples)
    if files is not None:
        sizes = [path.stat().st_size for path in files]
        digest.update(repr(sizes).encode())
        for row in _spread(len(files), _affordable(len(files), sum(sizes))).tolist():
            digest.update(hashlib.sha256(files[row].read_bytes()).digest())
    elif len(samples):
        for rows in torch.split(_rows(samples), ROWS):
            for key, value in samples.inputs(rows).items():
                digest.update(key.encode())
                _update(digest, value)
    return digest.hexdigest()


def _with_values(content: object, samples: Samples) -> hashlib._Hash:
    """Digest of the text of an object and of the ``digest_values`` of samples."""
    digest = hashlib.sha256(repr(content).encode())
    for value in samples.digest_values:
        _update(digest, value)
    return digest


def _update(digest: hashlib._Hash, value: Tensor) -> None:
    # The same bytes are another array in another shape or type.
    digest.update(repr((value.dtype, tuple(value.shape))).encode())
    digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)


def _rows(samples: Samples) -> Tensor:
    """Rows (N,) whose inputs are read."""
    first = samples.inputs(torch.zeros(1, dtype=torch.long))
    num_bytes = sum(value.numel() * value.element_size() for value in first.values())
    num_rows = _affordable(len(samples), num_bytes * len(samples))
    # Decoding or computing inputs takes far longer than reading their bytes.
    images = _images(samples)
    if not isinstance(images, (TensorData, ArrayData, ItemData)):
        num_rows = min(num_rows, MOST_COMPUTED)
    return _spread(len(samples), num_rows)


def _affordable(num_samples: int, num_bytes: int) -> int:
    """Number of samples that are read from a split whose inputs have ``num_bytes`` in total."""
    if num_bytes <= LARGEST_BYTES:
        return num_samples
    return min(max(num_samples * LARGEST_BYTES // num_bytes, FEWEST_SAMPLES), num_samples)


def _spread(num_samples: int, num_rows: int) -> Tensor:
    if num_rows == num_samples:
        return torch.arange(num_samples)
    # In float32 the rows of more than 2**24 samples could not be told apart.
    return torch.linspace(0, num_samples - 1, num_rows, dtype=torch.float64).long()


def _images(samples: Samples) -> Samples:
    return samples.images if isinstance(samples, LabelledPixels) else samples


def _files(samples: Samples) -> Sequence[Path] | None:
    """Picture files of the samples, None for other inputs."""
    images = _images(samples)
    if not isinstance(images, LazyData) or not isinstance(images.read, Pictures):
        return None
    source = images.read.open
    if not isinstance(source, Files):
        return None
    return [Path(source.paths[row]) for row in images.rows.tolist()]
