"""Ranking of the passages of a query."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instil.core import UNLABELLED, Batch, Card, Outputs, to_float32
from instil.functional.ranking import (
    PADDED_SCORE,
    is_candidate,
    ndcg,
    ranked_grades,
    recall_at_k,
    reciprocal_rank,
)
from instil.metrics.bases.ranking_metric import KOption
from instil.tasks.bases.task import Evaluation, LabelKind, Task
from instil.tasks.sentence_embedding import SCALE, embed

CROSS_ENCODER_CLASSES = "ForSequenceClassification"
"""End of the names of transformers classes that score a pair of texts."""


def call(model: nn.Module, batch: Batch) -> Outputs:
    """Score the passages of each query.

    A bi-encoder embeds query and passages one by one; the score is 20 times their cosine. A
    cross-encoder reads a query and a passage as one text and returns one number: a network with
    ``reads_pairs``, or a transformers model for sequence classification with one label. A network
    with ``reads_scores`` returns the recorded scores of the data.

    Args:
        model: a text model, called like one of transformers.
        batch: ``input_ids``, ``attention_mask`` (N, L), and ``passage_input_ids``,
            ``passage_attention_mask`` (N, D, M). A passage without tokens is missing.

    Returns:
        ``logits`` (N, D), the scores; -10000 for a missing passage. A bi-encoder also returns
        ``query_embedding`` (N, E) and ``candidate_embedding`` (N, D, E). Without passages, it
        returns only ``query_embedding``.
    """
    if getattr(model, "reads_scores", False):
        return {"logits": model(batch)}
    if "passage_input_ids" not in batch:
        return {"query_embedding": _embedding(model, batch)}
    passages = batch["passage_input_ids"]
    mask = batch.get("passage_attention_mask")
    mask = torch.ones_like(passages) if mask is None else mask
    is_missing = mask.sum(-1) == 0
    # A missing passage is read as one token: attention over no token is not defined.
    mask = torch.cat([torch.where(is_missing[..., None], 1, mask[..., :1]), mask[..., 1:]], -1)
    if is_cross_encoder(model):
        scores = _pair_scores(model, batch, passages, mask)
        return {"logits": scores.masked_fill(is_missing, PADDED_SCORE)}
    query = _embedding(model, batch)
    flat = {"input_ids": passages.flatten(0, 1), "attention_mask": mask.flatten(0, 1)}
    embeddings = _embedding(model, flat)
    candidates = embeddings.view(*passages.shape[:2], *embeddings.shape[1:])
    scores = cosine_scores(query, candidates).masked_fill(is_missing, PADDED_SCORE)
    return {"logits": scores, "query_embedding": query, "candidate_embedding": candidates}


def is_cross_encoder(model: nn.Module) -> bool:
    """Whether a model reads query and passage as one text and returns one number."""
    if hasattr(model, "reads_pairs"):
        return bool(model.reads_pairs)
    num_labels = getattr(getattr(model, "config", None), "num_labels", 0)
    return type(model).__name__.endswith(CROSS_ENCODER_CLASSES) and num_labels == 1


def cosine_scores(query: Tensor, candidates: Tensor) -> Tensor:
    """Return 20 times the cosines (N, D) of queries (N, E) and candidates (N, D, E)."""
    unit = F.normalize(query, dim=-1), F.normalize(candidates, dim=-1)
    return SCALE * (unit[1] @ unit[0][:, :, None])[..., 0]


def join_texts(first: Batch, second: Batch) -> Batch:
    """Join two texts to one, without the padding between them.

    Args:
        first: ``input_ids`` and ``attention_mask`` (N, L).
        second: ``input_ids`` and ``attention_mask`` (N, M).

    Returns:
        ``input_ids`` and ``attention_mask`` (N, L + M), padding at the end.
    """
    ids = torch.cat([first["input_ids"], second["input_ids"]], 1)
    mask = torch.cat([first["attention_mask"], second["attention_mask"]], 1)
    # A stable sort by the mask moves padding to the end and keeps the order of the tokens.
    order = mask.argsort(dim=1, descending=True, stable=True)
    return {"input_ids": ids.gather(1, order), "attention_mask": mask.gather(1, order)}


def _embedding(model: nn.Module, batch: Batch) -> Tensor:
    outputs = embed(model, batch["input_ids"], batch.get("attention_mask"))
    embedding: Tensor = outputs["sentence_embedding"]
    return embedding


def _pair_scores(model: nn.Module, batch: Batch, passages: Tensor, mask: Tensor) -> Tensor:
    """Scores (N, D) of a cross-encoder."""
    num_passages = passages.shape[1]
    ids = batch["input_ids"]
    query_mask = batch.get("attention_mask", torch.ones_like(ids))
    query = {
        "input_ids": ids.repeat_interleave(num_passages, 0),
        "attention_mask": query_mask.repeat_interleave(num_passages, 0),
    }
    passage = {"input_ids": passages.flatten(0, 1), "attention_mask": mask.flatten(0, 1)}
    result = model(**join_texts(query, passage))
    scores: Tensor = result["logits"] if isinstance(result, Mapping) else result
    return scores.reshape(passages.shape[:2])


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

    def __init__(self, kind: LabelKind = "graded", k: KOption = 10):
        super().__init__(kind)
        self.k = k

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

    def call_exported(self, graph: Callable[[Batch], Outputs], batch: Batch) -> Outputs:
        """Return the scores of an exported bi-encoder, from the embeddings of all texts."""
        passages, mask = batch["passage_input_ids"], batch["passage_attention_mask"]
        is_missing = mask.sum(-1) == 0
        mask = torch.cat([torch.where(is_missing[..., None], 1, mask[..., :1]), mask[..., 1:]], -1)
        query = graph(batch)["query_embedding"]
        flat = {"input_ids": passages.flatten(0, 1), "attention_mask": mask.flatten(0, 1)}
        embedding = graph(flat)["query_embedding"]
        scores = cosine_scores(query, embedding.view(*passages.shape[:2], -1))
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
        ranked: list[Tensor] = []
        agrees: list[Tensor] = []
        for batch, outputs, teacher_outputs in self.iter_outputs(net, batches, teacher):
            grades = batch["label"]
            scores = to_float32(outputs["logits"])
            is_used = (grades > 0).any(1)
            _check_finite(scores[is_used])
            ranked.append(ranked_grades(scores[is_used], grades[is_used]).cpu())
            if "logits" in teacher_outputs:
                is_missing = grades == UNLABELLED
                best = scores.masked_fill(is_missing, -torch.inf).argmax(1)
                teacher_scores = to_float32(teacher_outputs["logits"])
                teacher_best = teacher_scores.masked_fill(is_missing, -torch.inf).argmax(1)
                agrees.append((best == teacher_best)[is_used].cpu())
        metrics = self._metrics(torch.cat(ranked))
        if agrees:
            metrics["agreement"] = torch.cat(agrees).double().mean().item()
        return metrics, {}

    def _metrics(self, ranked: Tensor) -> dict[str, float]:
        if not len(ranked):
            raise ValueError("no query to evaluate on has a relevant candidate")
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
