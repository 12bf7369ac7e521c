"""Encoder-decoders of transformers by folder, with the special tokens of their tokenizers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from instil.core import Net
from instil.data.pair_tokenizers import pair_tokenizer
from instil.data.sources.pairs import pairs
from instil.deployment.export import export
from instil.export.transformers import to_transformers
from instil.networks.factory import build
from instil.objectives.logits.forward_kl import ForwardKL
from instil.recipe import build as build_recipe
from instil.schemes.offline.offline import Offline
from instil.students.depth import depth
from instil.tasks.seq2seq import call
from instil.teachers.frozen import Frozen
from instil.training.fit import fit
from instil.training.settings import Training
from tests.experiment.small import run_of
from tests.networks.sources.folders import (
    ENCODER_DECODERS,
    tokenizer,
    write_encoder_decoder,
    write_pairs,
)

transformers = pytest.importorskip("transformers")
SEQ2SEQ = "transformers:AutoModelForSeq2SeqLM"


@pytest.mark.parametrize("name", ENCODER_DECODERS)
def test_rows_are_those_of_the_tokenizer_and_a_cut_student_is_exported(
    name: str, tmp_path: Path
) -> None:
    teacher = write_encoder_decoder(tmp_path / "teacher", name)
    write_pairs(tmp_path / "pairs.jsonl")
    data = pairs("pairs.jsonl", tokenizer="teacher", base=tmp_path)
    samples: Any = data.train
    batch = samples.__getitems__([0, 1])
    own = transformers.AutoTokenizer.from_pretrained(tmp_path / "teacher")
    mask = batch["encoder_attention_mask"].bool()
    for row, is_text, label in zip(batch["input_ids"], mask, batch["label"], strict=True):
        text = own.decode(row, skip_special_tokens=True)
        assert row[is_text].tolist() == own(text)["input_ids"]
        answer = samples.text_of(label[label >= 0].tolist())
        assert label[label >= 0].tolist() == own(answer)["input_ids"]
        assert int(answer) == int(text.split("+")[0]) + 1
    assert samples.facts["pad"] == own.pad_token_id
    read = build(SEQ2SEQ, {"path": str(tmp_path / "teacher")}, pretrained=True).eval()
    with torch.no_grad():
        ids = batch["input_ids"]
        labels = batch["label"]
        expected = teacher(input_ids=ids, attention_mask=mask.long(), labels=labels)["logits"]
    torch.testing.assert_close(call(read, batch)["logits"], expected)
    student = depth(build(SEQ2SEQ, {"path": str(tmp_path / "teacher")}), decoder_layers=1)
    scheme = Offline(Net(student, call), Frozen(Net(read, call)), {"kl": ForwardKL()})
    fit(scheme, [batch], Training(epochs=1, device="cpu"))
    to_transformers(Net(student, call).eval(), batch, tmp_path / "student")
    again = build(SEQ2SEQ, {"path": str(tmp_path / "student")}, pretrained=True).eval()
    torch.testing.assert_close(call(again, batch)["logits"], call(student, batch)["logits"])


def test_special_tokens_are_optional_and_end_with_the_end_token(tmp_path: Path) -> None:
    write_encoder_decoder(tmp_path / "bart", "bart")
    texts = [("a", "b")]
    with_special = pair_tokenizer("bart", None, texts, tmp_path)
    plain = pair_tokenizer("bart", None, texts, tmp_path, special_tokens=False)
    assert with_special.source_ids("a") == [1, *plain.source_ids("a")]
    assert with_special.text_of(with_special.target_ids("a")) == "a"
    own = tokenizer()
    processors = pytest.importorskip("tokenizers").processors
    own.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s> <s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    own.save_pretrained(tmp_path / "codes")
    with pytest.raises(ValueError, match="tokenizer: it adds </s>, <s>, with tokens after the end"):
        pair_tokenizer("codes", None, texts, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ENCODER_DECODERS)
@pytest.mark.parametrize("scheme", ["offline", "sequence_kd"])
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
def test_recipes_with_a_folder(
    name: str, scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))
    teacher = write_encoder_decoder(tmp_path / "teacher", name)
    write_pairs(tmp_path / "pairs.jsonl")
    recipe = {
        "task": "seq2seq",
        "folder": str(tmp_path),
        "data": {"name": "pairs", "files": "pairs.jsonl", "tokenizer": "teacher"},
        "teacher": "transformers:teacher",
        "student": {"model": "teacher", "changes": {"lora": {"rank": 2}}},
        "scheme": scheme,
        "objectives": {"cross_entropy": {}},
        "train": {"epochs": 1, "optimizer": {"lr": 1e-3}},
        "seeds": [0],
        "export": False,
    }
    assert run_of(build_recipe(recipe), tmp_path / "run")["status"] == "complete"
    export(tmp_path / "run", int8=False)
    student = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "run" / "student")
    assert type(student) is type(teacher)
    own = transformers.AutoTokenizer.from_pretrained(tmp_path / "teacher")
    written = transformers.AutoTokenizer.from_pretrained(tmp_path / "run" / "student")
    assert written("7+1")["input_ids"] == own("7+1")["input_ids"]
    assert (written.pad_token, written.eos_token) == (own.pad_token, own.eos_token)
    special = ("pad_token_id", "eos_token_id", "decoder_start_token_id")
    for name in special:
        assert getattr(student.config, name) == getattr(teacher.config, name)
