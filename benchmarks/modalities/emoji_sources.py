"""Data source of the row of drawings and their English names."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from instil.data.samples import TensorData
from instil.data.splits import Splits

SPLITS = ("train", "validation", "test")
LENGTH = 12
"""Number of tokens of a text; further words are left out."""
PADDING, UNKNOWN = 0, 1


def pairs(folder: str, vendors: int = 1, keywords: bool = False) -> Splits:
    """Drawings of emoji with their English names, one word per token.

    Samples have ``image`` (3, 16, 16), ``input_ids`` and ``attention_mask`` (12,). ``label`` is the
    group, for evaluation only. No emoji is in two splits. Validation and test data have one drawing
    by the first vendor and the name of each emoji.

    Args:
        folder: folder of ``emoji.npz`` and ``emoji_text.jsonl.gz``.
        vendors: number of vendors of the training drawings.
        keywords: whether the training texts have further words after the name.

    Returns:
        Train, validation and test data.
    """
    with np.load(Path(folder) / "emoji.npz") as file:
        images = torch.from_numpy(file["images"]).permute(0, 1, 4, 2, 3)
        group, split = torch.from_numpy(file["group"]), file["split"]
        classes = tuple(map(str, file["groups"]))
    with gzip.open(Path(folder) / "emoji_text.jsonl.gz", "rt", encoding="utf-8") as lines:
        entries = [json.loads(line) for line in lines]
    names = [_words(entry["name"]["en"]) for entry in entries]
    texts = [_words(" ".join([e["name"]["en"], *e["keywords"]["en"]])) for e in entries]
    # The vocabulary is that of all training texts, so that every source has the same tokens.
    seen = set().union(*(texts[row] for row in np.flatnonzero(split == 0)))
    vocabulary = {word: index for index, word in enumerate(sorted(seen), 2)}
    facts = {"channels": 3, "size": 16, "vocabulary": len(vocabulary) + 2, "length": LENGTH}
    parts = {}
    for value, part in enumerate(SPLITS):
        rows = np.flatnonzero(split == value).repeat(vendors if value == 0 else 1)
        vendor = np.arange(len(rows)) % (vendors if value == 0 else 1)
        source = texts if keywords and value == 0 else names
        ids = torch.stack([_tokens(source[row], vocabulary) for row in rows])
        tensors = {
            "image": F.avg_pool2d(images[rows, vendor].float() / 255, 2),
            "input_ids": ids,
            "attention_mask": (ids != PADDING).long(),
        }
        parts[part] = TensorData(tensors, group[rows], classes, facts)
    return Splits(*parts.values(), classes, "single")


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _tokens(words: list[str], vocabulary: dict[str, int]) -> Tensor:
    """Token ids (LENGTH,), padded."""
    ids = [vocabulary.get(word, UNKNOWN) for word in words[:LENGTH]]
    return torch.tensor(ids + [PADDING] * (LENGTH - len(ids)))
