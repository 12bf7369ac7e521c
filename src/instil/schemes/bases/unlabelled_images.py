"""Labels of the data in schemes whose generated images have none."""

from __future__ import annotations

import torch

from instil.core import UNLABELLED, Batch, Scheme


def require_no_labels(scheme: Scheme) -> None:
    """Check that no objective needs the labels of generated images.

    Args:
        scheme: a scheme that generates images without labels.

    Raises:
        ValueError: for an objective that needs labels.
    """
    for name, objective in scheme.objectives.named():
        if objective.items.labelled:
            raise ValueError(
                f"objectives.{name}: {type(objective).__name__} needs labels, and images that "
                f"{type(scheme).__name__} generates have none. Expected losses on teacher outputs. "
                f"Remove {name}"
            )


def without_labels(batch: Batch) -> Batch:
    """Batch whose labels are all ``UNLABELLED``.

    Args:
        batch: batch of the data, with or without ``label``.
    """
    if "label" not in batch:
        return batch
    return batch | {"label": torch.full_like(batch["label"], UNLABELLED)}
