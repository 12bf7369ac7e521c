"""Segments of pairs of texts: scores are those of transformers for the same pair."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from instil.core import Net
from instil.data.sources.passages import passages
from instil.data.sources.texts import texts
from instil.export.onnx import to_onnx
from instil.export.session import Session
from instil.tasks.bases.token_types import token_types
from instil.tasks.ranking import Ranking
from instil.tasks.text_classification import call

transformers = pytest.importorskip("transformers")

WORDS = ("the", "quick", "brown", "fox", "jumps", "over", "lazy", "dog")
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
FAMILIES = ("bert", "roberta")


def tokenizer_of(family: str, folder: Path) -> Any:
    """Tokenizer of a family over a few words, as transformers writes it."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    first, end = ("[CLS]", "[SEP]") if family == "bert" else ("<s>", "</s>")
    vocabulary = {word: index for index, word in enumerate(["[PAD]", "[UNK]", first, end, *WORDS])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    kind = processors.BertProcessing if family == "bert" else processors.RobertaProcessing
    inner.post_processor = kind((end, vocabulary[end]), (first, vocabulary[first]))
    names = {"bert": ("cls_token", "sep_token"), "roberta": ("bos_token", "eos_token")}[family]
    special = dict(zip(names, (first, end), strict=True)) | {"pad_token": "[PAD]"}
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=inner, **special)
    tokenizer.save_pretrained(folder)
    return tokenizer


def classifier(family: str, num_labels: int) -> Any:
    torch.manual_seed(0)
    kind = {"bert": "BertConfig", "roberta": "RobertaConfig"}[family]
    config = getattr(transformers, kind)(
        vocab_size=12,
        intermediate_size=16,
        max_position_embeddings=40,
        num_labels=num_labels,
        pad_token_id=0,
        # Segments that matter as much as the words.
        initializer_range=0.5,
        type_vocab_size=2 if family == "bert" else 1,
        **SIZES,
    )
    return transformers.AutoModelForSequenceClassification.from_config(config).eval()


def expected(model: Any, tokenizer: Any, *pair: str) -> torch.Tensor:
    """Logits of transformers for a pair of texts."""
    ids = tokenizer(*pair)["input_ids"]
    second = len(tokenizer(pair[0])["input_ids"])
    row = {"input_ids": torch.tensor([ids])}
    if model.config.type_vocab_size == 2:
        types = [0] * second + [1] * (len(ids) - second)
        row["token_type_ids"] = torch.tensor([types])
    with torch.no_grad():
        logits: torch.Tensor = model(**row).logits
    return logits[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_classifier_of_pairs_has_the_logits_of_transformers(family: str, tmp_path: Path) -> None:
    tokenizer, model = tokenizer_of(family, tmp_path / "model"), classifier(family, 2)
    rows = [("the quick fox", "lazy dog", "a"), ("dog", "the brown fox jumps", "b")] * 6
    lines = [json.dumps({"one": one, "two": two, "label": label}) for one, two, label in rows]
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines))
    data = texts("pairs.jsonl", "one", "two", tokenizer="model", length=16, base=tmp_path).train
    batch = data.__getitems__(range(len(data)))
    with torch.no_grad():
        logits = call(model, batch)["logits"]
    for row, position in enumerate(data.origin.tolist()):
        torch.testing.assert_close(logits[row], expected(model, tokenizer, *rows[position][:2]))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_cross_encoder_has_the_scores_of_transformers(family: str, tmp_path: Path) -> None:
    tokenizer, model = tokenizer_of(family, tmp_path / "model"), classifier(family, 1)
    query, good, bad = "quick fox", "the brown fox jumps", "lazy dog"
    line = json.dumps({"query": query, "positive": good, "negatives": [bad]})
    (tmp_path / "rows.jsonl").write_text("\n".join([line] * 8))
    data = passages("rows.jsonl", tokenizer="model", length=12, base=tmp_path).train
    batch = data.__getitems__([0, 1])
    task = Ranking()
    net = Net(model, task.call)
    with torch.no_grad():
        scores = net(batch)["logits"]
    pairs = torch.cat([expected(model, tokenizer, query, text) for text in (good, bad)])
    torch.testing.assert_close(scores, pairs.expand(2, 2))
    example, roles = task.export_example(net, batch)
    to_onnx(net, example, tmp_path / "model.onnx", task.export_inputs, roles=roles)
    graph = Session(tmp_path / "model.onnx", roles)
    exported = task.call_exported(graph, batch)["logits"]
    torch.testing.assert_close(exported, scores, rtol=1e-3, atol=1e-3)


def test_one_text_has_one_segment_and_given_types_stay() -> None:
    model = classifier("bert", 2)
    batch = {"input_ids": torch.tensor([[2, 5, 6, 3, 0], [2, 5, 3, 6, 3]])}
    batch["attention_mask"] = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]])
    types = token_types(model, batch)["token_type_ids"]
    assert types.tolist() == [[0, 0, 0, 0, 0], [0, 0, 0, 1, 1]]
    own = {"token_type_ids": torch.ones(2, 5, dtype=torch.int64)}
    assert token_types(model, batch | own)["token_type_ids"] is own["token_type_ids"]
    assert token_types(classifier("roberta", 2), batch) == {}
