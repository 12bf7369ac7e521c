"""Items of a batch: which ones count, means over them, and replacement of the others."""

from instil.items.batch import (
    UNLABELLED,
    Batch,
    Outputs,
    batch_size,
    first_tensor,
    graph_preserving_zero,
    in_dtype_of,
    item_weights,
    mean,
    to_device,
    to_float32,
)
from instil.items.rule import Average, Items, counted_label
from instil.items.uncounted import (
    drop_gradient,
    drop_unlabelled_gradient,
    every_item_counts,
    replace_invalid,
    replace_invalid_outputs,
    replace_uncounted,
)

__all__ = [
    "UNLABELLED",
    "Average",
    "Batch",
    "Items",
    "Outputs",
    "batch_size",
    "counted_label",
    "drop_gradient",
    "drop_unlabelled_gradient",
    "every_item_counts",
    "first_tensor",
    "graph_preserving_zero",
    "in_dtype_of",
    "item_weights",
    "mean",
    "replace_invalid",
    "replace_invalid_outputs",
    "replace_uncounted",
    "to_device",
    "to_float32",
]
