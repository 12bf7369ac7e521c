"""Time of a prediction of a graph network and of a perceptron, for growing numbers of nodes.

python benchmarks/graph_latency.py debian_packages_graph.npz

The graph network needs the nodes up to two edges away, whose collection is part of its time. The
perceptron reads the features of the requested nodes. Networks and data are those of
``modalities/graphs.recipe.yaml``, without training, as weights do not change the time. Writes
``graph_latency.json``.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch

from instil.data.nodes import Nodes
from instil.data.sources.graph_npz import graph_npz
from instil.files.atomic import atomic
from instil.networks.gcn import gcn
from instil.networks.mlp import mlp
from instil.tasks.node_classification import call

RESULT = Path(__file__).with_name("graph_latency.json")
NUM_NODES = (1, 10, 100, 1000, 3649)
REPEATS = 30
EDGES = ["edge_depends", "edge_codepends"]


def best_time(run: Callable[[], object]) -> float:
    """Shortest time of a call, in milliseconds: other programs only add to it."""
    run()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return 1000 * min(times)


def measure(nodes: Nodes) -> list[dict[str, float]]:
    """Return the times of both networks for each number of nodes."""
    num_classes, num_features = len(nodes.classes), nodes.features.shape[1]
    torch.manual_seed(0)
    teacher = gcn(num_classes, num_features, depth=1, mean_logits=True).eval()
    student = mlp(num_classes, features=num_features, width=64).eval()
    order = torch.randperm(len(nodes), generator=torch.Generator().manual_seed(0))
    lines = []
    for count in NUM_NODES:
        rows = order[:count]
        lines.append(
            {
                "nodes": count,
                "nodes_read": len(nodes.__getitems__(rows)["x"]),
                "teacher_ms": best_time(lambda rows=rows: call(teacher, nodes.__getitems__(rows))),
                "student_ms": best_time(lambda rows=rows: student(nodes.inputs(rows)["x"])),
            }
        )
    return lines


def main() -> None:
    """Measure on one thread and write the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("graph", help="path of debian_packages_graph.npz")
    path = parser.parse_args().graph
    torch.set_num_threads(1)
    test = graph_npz(str(Path(path).absolute()), edges=EDGES, label="label").test
    assert isinstance(test, Nodes)
    with torch.inference_mode():
        lines = measure(test)
    with atomic(RESULT) as temporary:
        temporary.write_text(json.dumps({"lines": lines}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
