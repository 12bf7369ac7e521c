"""Prediction of edges of a graph."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import UNLABELLED, Batch, Card, Outputs
from instil.functional.graph import pair_embeddings
from instil.functional.ranking import ranked_grades, recall_at_k, reciprocal_rank, roc_auc
from instil.tasks.bases.task import Evaluation, LabelKind
from instil.tasks.ranking import Ranking

ROLES = ("logits", "query_embedding", "candidate_embedding")
HitsOption = Annotated[
    int, Ge(1), Doc("an edge is a hit if it is among the first k of its candidates")
]


def call(model: nn.Module, batch: Batch) -> Outputs:
    """Score the candidates of each anchor.

    A model with the parameter ``pair_position``, such as ``link_predictor``, returns the scores. A
    model that returns embeddings of nodes, such as one of PyTorch Geometric, is used with the
    inner product. A model without the parameter ``edge_index`` reads anchors and candidates only.

    Args:
        model: a model of ``x`` (n, F) and optionally ``edge_index`` (2, E).
        batch: batch of ``Links``.

    Returns:
        ``logits`` (N, D); ``query_embedding`` (N, E), also as ``embedding``, and
        ``candidate_embedding`` (N, D, E).
    """
    parameters = inspect.signature(model.forward).parameters
    arguments: dict[str, Tensor] = {}
    x = batch["x"][: len(batch["end_index"])]
    if getattr(model, "reads_edges", "edge_index" in parameters):
        x = batch["x"]
        arguments["edge_index"] = batch["edge_index"]
    if "pair_position" in parameters:
        arguments["pair_position"] = batch["pair_position"]
    result = model(x, **arguments)
    if isinstance(result, Mapping):
        outputs = {role: result[role] for role in ROLES if role in result}
    else:
        anchor, candidates = pair_embeddings(result, batch["pair_position"])
        outputs = {
            "logits": (anchor[:, None] * candidates).sum(-1),
            "query_embedding": anchor,
            "candidate_embedding": candidates,
        }
    if "query_embedding" in outputs:
        outputs["embedding"] = outputs["query_embedding"]
    return outputs


class LinkPrediction(Ranking):
    """Prediction of edges.

    A sample is a node (anchor) with candidates. ``label`` (N, D) is 1 for a candidate with an edge
    to the anchor, 0 for one without, and -100 if it is not known.
    """

    card = Card(
        "Open Graph Benchmark: Datasets for Machine Learning on Graphs",
        "https://arxiv.org/abs/2005.00687",
        "NeurIPS",
        2020,
        tasks=("link_prediction",),
        labels=("graded",),
    )
    title = "link prediction"
    names = ("pair_index", "pair_position", "end_index", "x", "edge_index", "label")
    inputs = ("pair_position", "end_index", "x", "edge_index")
    label_objectives = ("pair_cross_entropy",)
    method_tasks = ("ranking", "classification")
    reads_texts = False
    headline = "mrr"
    secondary = ("hits", "auc")
    export_inputs: ClassVar[tuple[str, ...]] = ()
    export_roles: ClassVar[tuple[str, ...]] = ()
    eval_batch_size = 512
    exports = False
    call = staticmethod(call)

    def __init__(self, kind: LabelKind = "graded", k: HitsOption = 10):
        super().__init__(kind, k)

    def check_data(self, batch: Batch) -> None:
        super().check_data(batch)
        position = batch["pair_position"]
        num_pairs = batch["label"].shape[1]
        if position.ndim != 2 or position.shape[1] != 1 + num_pairs:
            raise ValueError(
                f"pair_position: wrong shape. Expected an anchor and {num_pairs} candidates for "
                f"each sample, (N, {1 + num_pairs}), got {tuple(position.shape)}"
            )

    def pseudo_labels(self, outputs: Outputs, label: Tensor) -> Tensor:
        """Return 1 for each unlabelled pair with a positive score of the teacher, else 0."""
        decisions = (outputs["logits"].to(label.device) > 0).to(label.dtype)
        return torch.where(label == UNLABELLED, decisions, label)

    def evaluate(
        self, net: nn.Module, batches: Iterable[Any], teacher: nn.Module | None = None
    ) -> Evaluation:
        """Compute metrics of the scores of edges and of pairs without an edge in eval mode.

        Metrics of the anchors with an edge:

        - ``mrr``: mean reciprocal rank of the edge among the candidates of its anchor;
        - ``hits``: share of the edges among the first k of these candidates (Hits@k);
        - ``auc``: area under the ROC curve of all their pairs;
        - ``accuracy``: share of the anchors whose first candidate has an edge;
        - with a teacher, ``agreement`` in the first candidate.

        Equal scores count as a wrong order, and in ``auc`` as half right.

        Args:
            net: network to evaluate.
            batches: batches of the test data.
            teacher: teacher for ``agreement``, if there is one.

        Raises:
            ValueError: if no anchor has an edge, or a score is not finite.
        """
        return super().evaluate(net, batches, teacher)

    def _metrics(self, scores: Tensor, grades: Tensor) -> dict[str, float]:
        ranked = ranked_grades(scores, grades)
        is_known = grades != UNLABELLED
        return {
            "mrr": reciprocal_rank(ranked).mean().item(),
            "hits": recall_at_k(ranked, self.k).mean().item(),
            "auc": roc_auc(scores[is_known], grades[is_known] > 0),
            "accuracy": (ranked[:, 0] == ranked.amax(1)).double().mean().item(),
        }
