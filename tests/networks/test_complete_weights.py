"""Folders of transformers whose weights do not cover their configuration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from instil.networks.encoder import encoder
from instil.networks.factory import build

transformers = pytest.importorskip("transformers")
SIZES = {"vocab_size": 20, "hidden_size": 8, "intermediate_size": 16, "num_attention_heads": 2}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    config = transformers.BertConfig(**SIZES, num_hidden_layers=2)
    transformers.BertForMaskedLM(config).save_pretrained(tmp_path)
    return tmp_path


def edit(folder: Path, **entries: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def load(folder: Path) -> Any:
    spec = "transformers:AutoModelForSequenceClassification"
    return build(spec, {"path": str(folder)}, pretrained=True, classes=3)


def test_a_new_head_is_allowed(folder: Path) -> None:
    assert load(folder).config.num_labels == 3
    edit(folder, num_hidden_layers=1)
    assert len(load(folder).bert.encoder.layer) == 1


def test_a_head_for_other_classes_is_named(tmp_path: Path) -> None:
    config = transformers.BertConfig(**SIZES, num_hidden_layers=1, num_labels=7)
    transformers.BertForSequenceClassification(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"'classifier\.bias' has the shape \(7,\) .* and \(3,\)"):
        load(tmp_path)
    spec = "transformers:AutoModelForSequenceClassification"
    options = {"path": str(tmp_path), "ignore_mismatched_sizes": True}
    assert build(spec, options, pretrained=True, classes=3).classifier.bias.shape == (3,)


def test_layers_without_weights_are_named(folder: Path) -> None:
    edit(folder, num_hidden_layers=3)
    message = r"the weights have no 'bert\.encoder\.layer\.2\.attention.* and 15 more parameters"
    with pytest.raises(ValueError, match=message):
        load(folder)
    with pytest.raises(ValueError, match=r"the weights have no 'encoder\.layer\.2\.attention"):
        encoder(str(folder))


def test_weights_of_another_architecture_are_named(folder: Path) -> None:
    edit(folder, model_type="roberta", pad_token_id=1)
    with pytest.raises(ValueError, match=r"cannot be built: \d+ of \d+ parameters are not in the"):
        load(folder)
