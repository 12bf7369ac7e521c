"""Students that are exported as several ONNX graphs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol, runtime_checkable

from instil.core import Batch, Net


class ExportedPart(NamedTuple):
    """A graph of an exported student.

    Attributes:
        net: network of the part.
        batch: an example of its inputs.
        inputs: keys of the batch that are the inputs of the graph.
        roles: outputs of the network that are the outputs of the graph.
    """

    net: Net
    batch: Batch
    inputs: tuple[str, ...]
    roles: tuple[str, ...]


@runtime_checkable
class ExportsParts(Protocol):
    """Task whose students are exported as several graphs."""

    def export_parts(self, net: Net, batch: Batch) -> Mapping[str, ExportedPart]:
        """Return the graphs of a student by name.

        Args:
            net: the student.
            batch: an example batch of the data.

        Raises:
            ValueError: for a student that cannot be cut into these graphs.
        """
