"""Check that the batches of a graph have all nodes that a network reads."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from instil.core import Net, side_effect_free
from instil.data.samples import Samples
from instil.engine.cpu_offload import device_of
from instil.items import to_device
from instil.items.tensor_values import has_values
from instil.networks.model_source import ReadsBatch

NUM_ROWS = 4
"""Number of samples whose outputs are compared."""
FURTHER_HOPS = 4
"""Largest number of further hops that are tried."""
TOLERANCE = 1e-4
"""Largest difference of equal outputs, as a share of the largest one; rounding stays below."""


def check_reach(net: Net, samples: Samples) -> None:
    """Check that outputs do not change if batches have neighbours that are further away.

    Networks whose outputs depend on the whole batch at any number of hops, such as those with a
    normalisation over its nodes, pass.

    Args:
        net: network, on any device.
        samples: samples that it reads.

    Raises:
        ValueError: for a network that reads further than ``hops``, with the number that it needs.
    """
    weights = list(net.model.parameters())
    is_computed = all(has_values(weight) and not weight.is_meta for weight in weights)
    if not hasattr(samples, "with_hops") or isinstance(net.model, ReadsBatch) or not is_computed:
        return
    graph: Any = samples
    needed = _needed_hops(net, graph)
    if needed > graph.hops:
        raise ValueError(
            f"model: {type(net.model).__name__} reads nodes up to {needed} edges away, so that its "
            f"outputs would depend on the batch. Expected batches with these nodes, got hops: "
            f"{graph.hops}. Set data.hops: {needed}, or use fewer layers"
        )


def _needed_hops(net: Net, graph: Any) -> int:
    """Number of hops from which on outputs stay equal; that of the batches if there is none."""
    outputs, num_nodes = _outputs_at(net, graph, graph.hops)
    for hops in range(graph.hops, graph.hops + FURTHER_HOPS + 1):
        more, num_more = _outputs_at(net, graph, hops + 1)
        if num_more == num_nodes:
            # The whole graph: equal outputs show nothing.
            break
        if (outputs - more).abs().max() <= TOLERANCE * more.abs().max():
            needed: int = hops
            return needed
        outputs, num_nodes = more, num_more
    unchanged: int = graph.hops
    return unchanged


def _outputs_at(net: Net, graph: Any, hops: int) -> tuple[Tensor, int]:
    """Logits of the first samples at a number of hops, and the number of nodes of their batch."""
    batch = graph.with_hops(hops).__getitems__(list(range(min(NUM_ROWS, len(graph)))))
    with side_effect_free(net):
        outputs = net(to_device(batch, device_of(net)))
    return outputs["logits"][:NUM_ROWS], len(batch["x"])
