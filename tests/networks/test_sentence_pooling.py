"""Pooling of sentence encoders: the files of sentence-transformers decide it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from instil.networks.encoder import encoder
from instil.networks.factory import build
from instil.tasks.sentence_embedding import call

CONFIG: dict[str, Any] = {
    "vocab_size": 20,
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    transformers = pytest.importorskip("transformers")
    transformers.BertModel(transformers.BertConfig(**CONFIG)).save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


def write_modules(folder: Path, pooling: dict[str, Any], *kinds: str) -> None:
    names = ["Transformer", "Pooling", *kinds]
    modules = [
        {"idx": i, "path": f"{i}_{name}", "type": f"sentence_transformers.models.{name}"}
        for i, name in enumerate(names)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))


def expected(states: Tensor, mask: Tensor, name: str) -> Tensor:
    """Embeddings by a loop over the texts."""
    rows = [text[is_token.bool()] for text, is_token in zip(states, mask, strict=True)]
    pool = {
        "cls": lambda row: row[0],
        "mean": lambda row: row.mean(0),
        "max": lambda row: row.max(0).values,
        "last": lambda row: row[-1],
    }[name]
    return torch.stack([pool(row) for row in rows])


@pytest.mark.parametrize(
    ("pooling", "parts"),
    [
        (None, ["mean"]),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, ["mean"]),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, ["cls"]),
        ({"pooling_mode_lasttoken": True}, ["last"]),
        ({"pooling_mode": "cls"}, ["cls"]),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True}, ["max", "mean"]),
    ],
)
@pytest.mark.parametrize("side", ["right", "left"])
def test_embeddings_are_pooled_as_the_folder_defines(
    pooling: dict[str, Any] | None, parts: list[str], side: str, folder: Path
) -> None:
    if pooling is not None:
        write_modules(folder, pooling, "Normalize")
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    mask = mask if side == "right" else mask.flip(1)
    batch = {"input_ids": torch.tensor([[3, 4, 5, 6], [7, 8, 9, 10]]), "attention_mask": mask}
    options = {"path": str(folder)}
    for model in (
        encoder(str(folder)),
        build("transformers:AutoModel", options, pretrained=True).eval(),
    ):
        with torch.no_grad():
            embedding = call(model, batch)["sentence_embedding"]
            states = model(**batch).last_hidden_state
        both = torch.cat([expected(states, mask, name) for name in parts], 1)
        torch.testing.assert_close(embedding, both)


def test_modules_that_are_not_supported_are_errors(folder: Path) -> None:
    write_modules(folder, {"pooling_mode_weightedmean_tokens": True})
    with pytest.raises(ValueError, match=r"pooling: 'weightedmean_tokens'.*Expected one of cls"):
        encoder(str(folder))
    write_modules(folder, {"pooling_mode": "mean"}, "Dense")
    with pytest.raises(ValueError, match=r"module Dense of sentence-transformers is not supp"):
        build("transformers:AutoModel", {"path": str(folder)}, pretrained=True)
