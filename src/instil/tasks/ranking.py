"""Ranking of the passages of a query."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instil.core import (
    UNLABELLED,
    Batch,
    Card,
    Net,
    Objective,
    Objectives,
    Outputs,
    to_float32,
)
from instil.data.splits import Splits
from instil.functional.ranking import (
    PADDED_SCORE,
    is_candidate,
    ndcg,
    ranked_grades,
    recall_at_k,
    reciprocal_rank,
)
from instil.metrics.bases.ranking_metric import KOption
from instil.tasks.bases.candidate_checks import check_counts_candidates
from instil.tasks.bases.checks import TEXT_TASKS, check_compares_tokens
from instil.tasks.bases.ranking_call import (
    call,
    cosine_scores,
    flat_passages,
    is_cross_encoder,
    joined_pairs,
)
from instil.tasks.bases.task import Evaluation, LabelKind, Task


class Ranking(Task):
    """Ranking of the passages of a query, by a bi-encoder or a cross-encoder.

    ``label`` (N, D) is the grade >= 0 of each passage, -100 for a missing one; a query without a
    label has -100 only.
    """

    card = Card(
        "Ranking of passages",
        "https://arxiv.org/abs/2010.02666",
        "arXiv",
        2020,
        tasks=("ranking",),
        labels=("graded",),
    )
    title = "ranking"
    inputs: ClassVar[tuple[str, ...]] = (
        "input_ids",
        "attention_mask",
        "passage_input_ids",
        "passage_attention_mask",
    )
    names: ClassVar[tuple[str, ...]] = (*inputs, "label")
    kinds = ("graded",)
    label_objectives = ("ranking_cross_entropy",)
    headline = "ndcg"
    secondary = ("mrr", "recall")
    export_inputs: ClassVar[tuple[str, ...]] = ("input_ids", "attention_mask")
    export_roles: ClassVar[tuple[str, ...]] = ("query_embedding",)
    eval_batch_size = 64
    baselines: ClassVar = {"graded": ("alone", "pseudo_labels")}
    call = staticmethod(call)
    reads_texts: ClassVar = True
    """Whether candidates are passages; scores of items and of pairs of nodes are compared as they
    are."""

    def __init__(self, kind: LabelKind = "graded", k: KOption = 10):
        super().__init__(kind)
        self.k = k
        self.has_missing = False

    def set_data(self, splits: Splits) -> None:
        """Find out whether some queries have fewer passages than others."""
        label = splits.train.label
        is_missing = label == UNLABELLED
        self.has_missing = bool((is_missing & ~is_missing.all(1, keepdim=True)).any())

    def check(self, objectives: Mapping[str, Objective] | Objectives) -> None:
        """Raise ValueError for an objective that counts padding, or missing passages."""
        super().check(objectives)
        if not self.reads_texts:
            return
        check_compares_tokens(objectives, tasks=(*TEXT_TASKS, "ranking"))
        if self.has_missing:
            check_counts_candidates(objectives)

    def check_data(self, batch: Batch) -> None:
        super().check_data(batch)
        label = batch["label"]
        if label.ndim != 2 or not label.is_floating_point():
            raise ValueError(
                f"{self.title} needs grades (queries, candidates); these labels are {label.dtype} "
                f"of the shape {tuple(label.shape)}. Use a source with graded labels"
            )
        passages = batch.get("passage_input_ids")
        if passages is not None and passages.shape[:2] != label.shape:
            raise ValueError(
                f"label: wrong number of grades. Expected one for each passage "
                f"{tuple(passages.shape[:2])}, got {tuple(label.shape)}"
            )

    def export_example(self, net: Net, batch: Batch) -> tuple[Batch, tuple[str, ...]]:
        """Return input and outputs of the graph: texts, or joined pairs for a cross-encoder."""
        if is_cross_encoder(net.model):
            return joined_pairs(batch), ("logits",)
        return super().export_example(net, batch)

    def call_exported(self, graph: Callable[[Batch], Outputs], batch: Batch) -> Outputs:
        """Return the scores of an exported student, from the texts that its graph reads."""
        passages, is_missing = flat_passages(batch)
        if "logits" in getattr(graph, "roles", ()):
            scores = graph(joined_pairs(batch))["logits"].view(is_missing.shape)
        else:
            query = graph(batch)["query_embedding"]
            embedding = graph(passages)["query_embedding"]
            scores = cosine_scores(query, embedding.view(*is_missing.shape, -1))
        return {"logits": scores.masked_fill(is_missing.to(scores.device), PADDED_SCORE)}

    def pseudo_labels(self, outputs: Outputs, label: Tensor) -> Tensor:
        """Return grade 1 for the teacher's best candidate of each query without a label."""
        scores = outputs["logits"].to(label.device)
        best = F.one_hot(scores.argmax(1), label.shape[1]).to(label.dtype)
        best = best.masked_fill(~is_candidate(scores), UNLABELLED)
        is_unlabelled = (label == UNLABELLED).all(1, keepdim=True)
        return torch.where(is_unlabelled, best, label)

    def evaluate(
        self, net: nn.Module, batches: Iterable[Any], teacher: nn.Module | None = None
    ) -> Evaluation:
        """Compute metrics of the order of the candidates in eval mode.

        Metrics, averaged over the queries with a relevant candidate (grade > 0):

        - ``ndcg`` at k;
        - ``recall`` at k;
        - ``mrr``: mean reciprocal rank of the first relevant candidate;
        - ``accuracy``: share of the queries whose first candidate has the highest grade;
        - with a teacher, ``agreement`` in the first candidate.

        Equal scores count as a wrong order.

        Args:
            net: network to evaluate.
            batches: batches of the test data.
            teacher: teacher for ``agreement``, if there is one.

        Raises:
            ValueError: if no query has a relevant candidate, or a score is not finite.
        """
        scores, grades, agrees = self._collect(net, batches, teacher)
        if not len(grades):
            raise ValueError("no query to evaluate on has a relevant candidate")
        metrics = self._metrics(scores, grades)
        if agrees is not None:
            metrics["agreement"] = agrees.double().mean().item()
        return metrics, {}

    def _collect(
        self, net: nn.Module, batches: Iterable[Any], teacher: nn.Module | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Scores and grades (N, D) of queries with a relevant candidate.

        With a teacher also whether the first candidates agree (N,).
        """
        scores_of_batches: list[Tensor] = []
        grades_of_batches: list[Tensor] = []
        agrees: list[Tensor] = []
        for batch, outputs, teacher_outputs in self.iter_outputs(net, batches, teacher):
            grades = batch["label"]
            scores = to_float32(outputs["logits"])
            is_used = (grades > 0).any(1)
            _check_finite(scores[is_used])
            scores_of_batches.append(scores[is_used].cpu())
            grades_of_batches.append(grades[is_used].cpu())
            if "logits" in teacher_outputs:
                is_missing = grades == UNLABELLED
                best = scores.masked_fill(is_missing, -torch.inf).argmax(1)
                teacher_scores = to_float32(teacher_outputs["logits"])
                teacher_best = teacher_scores.masked_fill(is_missing, -torch.inf).argmax(1)
                agrees.append((best == teacher_best)[is_used].cpu())
        scores, grades = torch.cat(scores_of_batches), torch.cat(grades_of_batches)
        return scores, grades, torch.cat(agrees) if agrees else None

    def _metrics(self, scores: Tensor, grades: Tensor) -> dict[str, float]:
        ranked = ranked_grades(scores, grades)
        return {
            "ndcg": ndcg(ranked, self.k).mean().item(),
            "recall": recall_at_k(ranked, self.k).mean().item(),
            "mrr": reciprocal_rank(ranked).mean().item(),
            "accuracy": (ranked[:, 0] == ranked.amax(1)).double().mean().item(),
        }


def _check_finite(scores: Tensor) -> None:
    is_finite = scores.isfinite().all(1)
    if not is_finite.all():
        raise ValueError(
            f"{int((~is_finite).sum())} of {len(scores)} queries have scores that are not finite"
        )
