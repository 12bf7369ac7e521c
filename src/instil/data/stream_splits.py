"""Splits of streams, and numbers of samples that are unknown for a stream."""

from __future__ import annotations

from collections.abc import Mapping

from instil.data.labels import num_labelled
from instil.data.samples import Samples
from instil.data.splits import Splits
from instil.data.streams import Stream


def stream_splits(parts: Mapping[str, Samples], validation: float, test: float) -> Splits:
    """Complete the splits of a stream. Validation and test data are read into memory.

    Args:
        parts: data by split: ``train``, a stream, and optionally ``validation`` and ``test``.
        validation: number of samples: the first ones of the validation data or, without these, of
            the training data. A share below 1 stands for all validation data.
        test: the same for the test data. They come first in the training data.

    Raises:
        ValueError: without a train split, and for a share if there are no such data.
    """
    train = parts.get("train")
    if not isinstance(train, Stream):
        raise ValueError(f"no train set, only {', '.join(parts) or 'nothing'}")
    held_out: dict[str, Samples] = {}
    for name, amount in (("test", test), ("validation", validation)):
        part = parts.get(name)
        if amount >= 1 and amount != int(amount):
            raise ValueError(f"{name}: expected a whole number of samples, got {amount}")
        if part is None and amount < 1:
            raise ValueError(
                f"{name}: a share of {amount} needs the number of samples, which a stream does "
                f"not have. Expected {name} data, or a number of samples. Add a {name} file, or "
                f"set {name}: 1000 to hold out the first 1000 samples"
            )
        if part is None:
            held_out[name], train = train.take(int(amount))
        elif isinstance(part, Stream):
            held_out[name] = part.take(int(amount))[0] if amount >= 1 else part.in_memory()
        else:
            held_out[name] = part
        held_out[name].source_split = "train" if part is None else name
    return Splits(train, held_out["validation"], held_out["test"], train.classes, train.kind)


def sample_count(samples: Samples) -> int | None:
    """Return the number of samples, None for a stream."""
    return None if isinstance(samples, Stream) else len(samples)


def label_count(samples: Samples) -> int | None:
    """Return the number of samples with a label, None for a stream."""
    return None if isinstance(samples, Stream) else num_labelled(samples)
