"""Plugin with a data source whose training data are a stream."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from instil.data.splits import Splits
from instil.data.stream_splits import stream_splits
from instil.data.streams import Stream


def bright_or_dark(
    num_shards: int = 4, validation: float = 40, test: float = 40, shuffle_buffer: int = 50
) -> Splits:
    """Bright and dark images, 100 in each shard."""

    def read(shard: int) -> Iterator[dict[str, Any]]:
        generator = torch.Generator().manual_seed(shard)
        for _ in range(100):
            image = torch.rand(1, 6, 6, generator=generator)
            label = int(torch.randint(2, (), generator=generator))
            yield {"image": image * 0.8 + label * 0.2, "label": label}

    stream = Stream(read, num_shards, ["dark", "bright"], shuffle_buffer=shuffle_buffer)
    return stream_splits({"train": stream}, validation, test)
