"""Base class of metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from instil.core import Batch, Card, Outputs


class Metric:
    """Base class of metrics, which are computed over all batches of an evaluation.

    A metric is one file in ``instil/metrics``, or a class with a ``card`` in a plugin or in a
    module that a recipe imports. Its name is the name of the file, or of the class in snake case.

    Attributes:
        catalogue_kind: kind in the catalogue.
        card: title, source and kinds of labels.
        roles: outputs of the network that are read.
        batch_keys: entries of the batch that are read.
        higher_is_better: direction of the metric.
        is_fraction: whether reports show the value in percent.
        packages: optional packages, and the extra of this package that installs each.

    Example:
        >>> import torch
        >>> class Confidence(Metric):
        ...     card = Card("Mean confidence")
        ...     batch_keys = ()
        ...     def reset(self):
        ...         self.values = []
        ...     def update(self, outputs, batch):
        ...         self.values += outputs["logits"].softmax(-1).amax(-1).tolist()
        ...     def compute(self):
        ...         return sum(self.values) / len(self.values)
        >>> metric = Confidence()
        >>> metric.reset()
        >>> metric.update({"logits": torch.zeros(3, 4)}, {})
        >>> metric.compute()
        0.25
    """

    catalogue_kind: ClassVar[str] = "metric"
    card: ClassVar[Card]
    roles: ClassVar[tuple[str, ...]] = ("logits",)
    batch_keys: ClassVar[tuple[str, ...]] = ("label",)
    higher_is_better: ClassVar[bool] = True
    is_fraction: ClassVar[bool] = True
    packages: ClassVar[Mapping[str, str]] = {}

    def reset(self) -> None:
        """Forget all batches."""
        raise NotImplementedError

    def update(self, outputs: Outputs, batch: Batch) -> None:
        """Add a batch.

        Args:
            outputs: outputs of the network, with ``roles``.
            batch: the batch, with ``batch_keys``.

        Raises:
            ValueError: for outputs or labels of another form.
        """
        raise NotImplementedError

    def compute(self) -> float:
        """Return the value over all batches since ``reset``.

        Raises:
            ValueError: if the value is undefined for them.
        """
        raise NotImplementedError
