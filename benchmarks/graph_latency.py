"""Time of a prediction of a graph network and of a perceptron, for growing numbers of nodes.

python benchmarks/graph_latency.py debian_packages_graph.npz [--parts lines links]

The graph network needs the nodes up to two edges away, whose collection is part of its time. The
perceptron reads the features of the requested nodes. Networks and data are those of
``modalities/graphs.recipe.yaml``, and for ``links`` of ``modalities/links.recipe.yaml``, without
training, as weights do not change the time. Writes these parts of ``graph_latency.json``.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from instil.data.link_samples import Links
from instil.data.nodes import Nodes
from instil.data.sources.graph_links import graph_links
from instil.data.sources.graph_npz import graph_npz
from instil.files.json_files import write_json
from instil.networks.gcn import gcn
from instil.networks.link_predictor import link_predictor
from instil.networks.mlp import mlp
from instil.tasks import link_prediction
from instil.tasks.node_classification import call

RESULT = Path(__file__).with_name("graph_latency.json")
NUM_NODES = (1, 10, 100, 1000, 3649)
NUM_ANCHORS = (1, 10, 100, 1000)
REPEATS = 30
EDGES = ["edge_depends", "edge_codepends"]


def best_time(run: Callable[[], object]) -> float:
    """Shortest processor time of a call, in milliseconds: other programs only add to it."""
    run()
    times = []
    for _ in range(REPEATS):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return 1000 * min(times)


def measure_nodes(path: str) -> list[dict[str, float]]:
    """Return the times of both networks for each number of nodes."""
    nodes = graph_npz(path, edges=EDGES, label="label").test
    assert isinstance(nodes, Nodes)
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


def measure_links(path: str) -> list[dict[str, float]]:
    """Return the times of both networks for each number of anchors with 101 candidates."""
    links = graph_links(path, edges=EDGES, hops=1).test
    assert isinstance(links, Links)
    features = links.graphs[0].features
    torch.manual_seed(0)
    teacher = link_predictor(features.shape[1], depth=1).eval()
    student = link_predictor(features.shape[1], "mlp", depth=1).eval()
    order = torch.randperm(len(links), generator=torch.Generator().manual_seed(0))
    lines = []
    for count in NUM_ANCHORS:
        rows = order[:count]
        pairs = links.tensors["pair_index"][rows]
        lines.append(
            {
                "anchors": count,
                "nodes_read": len(links.__getitems__(rows)["x"]),
                "teacher_ms": best_time(
                    lambda rows=rows: link_prediction.call(teacher, links.__getitems__(rows))
                ),
                "student_ms": best_time(
                    lambda pairs=pairs: scores_of_features(student, features, pairs)
                ),
            }
        )
    return lines


def scores_of_features(student: nn.Module, features: Tensor, pairs: Tensor) -> Tensor:
    """Scores of pairs (N, 1 + D), from the features of their nodes alone."""
    ends, position = pairs.unique(return_inverse=True)
    scores: Tensor = student(features[ends], position)["logits"]
    return scores


def main() -> None:
    """Measure on one thread and write the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    measures = {"lines": measure_nodes, "links": measure_links}
    parser.add_argument("graph", help="path of debian_packages_graph.npz")
    parser.add_argument("--parts", nargs="+", choices=measures, default=list(measures))
    options = parser.parse_args()
    torch.set_num_threads(1)
    result = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    with torch.inference_mode():
        for part in options.parts:
            result[part] = measures[part](str(Path(options.graph).absolute()))
    write_json(RESULT, result)


if __name__ == "__main__":
    main()
