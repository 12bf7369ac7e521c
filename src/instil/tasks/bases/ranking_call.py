"""Scores of passages by a bi-encoder or a cross-encoder."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instil.core import Batch, Outputs
from instil.functional.ranking import PADDED_SCORE
from instil.tasks.bases.token_types import token_types
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
            ``passage_attention_mask`` (N, D, M). A passage without tokens is missing. With
            ``passage_start`` (N,), a passage that is joined to its query begins with this token in
            place of its first one, or without it for -1.

    Returns:
        ``logits`` (N, D), the scores; -10000 for a missing passage. A bi-encoder also returns
        ``query_embedding`` (N, E) and ``candidate_embedding`` (N, D, E). Without passages, it
        returns only ``query_embedding``, and a cross-encoder reads joined texts (N, L) and
        returns ``logits`` (N, 1).
    """
    if getattr(model, "reads_scores", False):
        return {"logits": model(batch)}
    if "passage_input_ids" not in batch:
        if is_cross_encoder(model):
            return {"logits": _scores(model, batch)}
        return {"query_embedding": _embedding(model, batch)}
    passages, is_missing = flat_passages(batch)
    if is_cross_encoder(model):
        scores = _scores(model, joined_pairs(batch)).view(is_missing.shape)
        return {"logits": scores.masked_fill(is_missing, PADDED_SCORE)}
    query = _embedding(model, batch)
    embeddings = _embedding(model, passages)
    candidates = embeddings.view(*is_missing.shape, *embeddings.shape[1:])
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


def flat_passages(batch: Batch) -> tuple[Batch, Tensor]:
    """Return all passages as texts (N D, M), and which passages (N, D) are missing.

    Args:
        batch: ``passage_input_ids`` and optionally ``passage_attention_mask`` (N, D, M).
    """
    passages = batch["passage_input_ids"]
    mask = batch.get("passage_attention_mask")
    mask = torch.ones_like(passages) if mask is None else mask
    is_missing = mask.sum(-1) == 0
    # A missing passage is read as one token: attention over no token is not defined.
    mask = torch.cat([torch.where(is_missing[..., None], 1, mask[..., :1]), mask[..., 1:]], -1)
    flat = {"input_ids": passages.flatten(0, 1), "attention_mask": mask.flatten(0, 1)}
    return flat, is_missing


def joined_pairs(batch: Batch) -> Batch:
    """Return texts (N D, L + M) of each query and each of its passages.

    Args:
        batch: batch of the task ``ranking``.
    """
    num_passages = batch["passage_input_ids"].shape[1]
    ids = batch["input_ids"]
    mask = batch.get("attention_mask", torch.ones_like(ids))
    query = {
        "input_ids": ids.repeat_interleave(num_passages, 0),
        "attention_mask": mask.repeat_interleave(num_passages, 0),
    }
    passages = flat_passages(batch)[0]
    if "passage_start" in batch:
        passages = _with_start(passages, batch["passage_start"].repeat_interleave(num_passages))
    return join_texts(query, passages)


def _with_start(passages: Batch, start: Tensor) -> Batch:
    """Return texts with another first token; without it for -1."""
    ids, mask = passages["input_ids"], passages["attention_mask"]
    is_dropped = start < 0
    first = torch.where(is_dropped, ids[:, 0], start)
    first_mask = mask[:, 0].masked_fill(is_dropped, 0)
    return {
        "input_ids": torch.cat([first[:, None], ids[:, 1:]], 1),
        "attention_mask": torch.cat([first_mask[:, None], mask[:, 1:]], 1),
    }


def _scores(model: nn.Module, batch: Batch) -> Tensor:
    """Scores (N, 1) of a cross-encoder for joined texts (N, L)."""
    ids = batch["input_ids"]
    mask = batch.get("attention_mask", torch.ones_like(ids))
    result = model(input_ids=ids, attention_mask=mask, **token_types(model, batch))
    scores: Tensor = result["logits"] if isinstance(result, Mapping) else result
    return scores.view(len(ids), 1)
