"""GGUF files of all families, compared with llama.cpp."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from instil.core import Net
from instil.data.pre_tokenizers import PRE_TOKENIZERS
from instil.data.tokenizers import load_tokenizer
from instil.export.gguf import to_gguf
from instil.networks.gguf import gguf
from instil.remote import Server
from instil.tasks.language import call
from tests import llama_cpp
from tests.export.test_gguf import TEXT, batch_of, goes_on, log_p, odd_texts, words

transformers = pytest.importorskip("transformers")
pytest.importorskip("gguf")

DEFAULT = {"rope_type": "default", "rope_theta": 50_000.0}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
LINEAR = {"rope_type": "linear", "rope_theta": 50_000.0, "factor": 3.0}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 50_000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 100,
}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 50_000.0,
    "short_factor": [1.0] * 8,
    "long_factor": [2.0] * 8,
    "original_max_position_embeddings": 400,
}
SCALINGS = [
    ("llama", LINEAR),
    ("llama", YARN),
    ("mistral", YARN | {"rope_theta": 10_000.0}),
    ("qwen2", LINEAR),
    ("qwen2", YARN | {"factor": 2.5, "original_max_position_embeddings": 160}),
    ("qwen3", LINEAR),
    ("qwen3", YARN),
    (
        "gemma3_text",
        {
            "full_attention": LINEAR | {"factor": 8.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
        },
    ),
]
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"rope_parameters": LLAMA3, "tie_word_embeddings": True},
    "mistral": {"sliding_window": None},
    "qwen2": {"head_dim": 16},
    "qwen3": {"tie_word_embeddings": True},
    "phi3": {
        "sliding_window": None,
        "head_dim": 16,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": 0,
    },
    "gemma3_text": {
        "rope_parameters": {
            "full_attention": DEFAULT,
            "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
        },
        "num_hidden_layers": 7,
        "sliding_window": 32,
        "query_pre_attn_scalar": 32,
        "tie_word_embeddings": True,
    },
    "gpt2": {
        "bos_token_id": 0,
        "eos_token_id": 0,
        "n_inner": 96,
        "tie_word_embeddings": True,
        "layer_norm_epsilon": 2e-5,
    },
}


def student(family: str, vocabulary: int, **changed: Any) -> Net:
    """Model of a family with weights that differ from layer to layer, biases and norms included."""
    sizes = {
        "vocab_size": vocabulary,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "max_position_embeddings": 400,
        "rms_norm_eps": 2e-5,
        "rope_parameters": DEFAULT,
        "tie_word_embeddings": False,
        "pad_token_id": None,
    }
    torch.manual_seed(0)
    # A copy, because configurations add entries to their rotary parameters.
    options = copy.deepcopy(sizes | FAMILIES[family] | changed)
    config = transformers.AutoConfig.for_model(family, **options)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    for parameter in model.parameters():
        mean = 1.0 if parameter.ndim == 1 else 0.0
        # The many layers of Gemma enlarge the rounding errors of llama.cpp.
        nn.init.normal_(parameter, mean, 0.1 if family == "gemma3_text" else 0.3)
    return Net(model, call)


class RoundedGelu(nn.Module):
    """GELU of llama.cpp on CPUs, a table for numbers of 16 bits."""

    def forward(self, x: Tensor) -> Tensor:
        rounded = nn.functional.gelu(x.half().float(), approximate="tanh").half().float()
        return torch.where(x.abs() < 10, rounded, x.clamp_min(0))


def round_activations(net: Net) -> None:
    """Compute activations as llama.cpp does on CPUs."""
    for part in net.model.modules():
        for name in ("act_fn", "act"):
            if "gelu" in type(getattr(part, name, None)).__name__.lower():
                setattr(part, name, RoundedGelu())


def splitting(name: str) -> Callable[[Any], None]:
    """Change of a tokenizer to a pre-tokenizer of llama.cpp."""
    tokenizers = pytest.importorskip("tokenizers")

    def change(inner: Any) -> None:
        split, _ = PRE_TOKENIZERS[name]
        inner.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
            [
                tokenizers.pre_tokenizers.Split(
                    tokenizers.Regex(split["pattern"]["Regex"]), "isolated"
                ),
                tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        inner.model.ignore_merges = name == "llama-bpe"
        inner.add_special_tokens(["<|im_start|>"])
        inner.add_tokens(["<think>"])

    return change


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("weight_type", ["f32", "q8_0"])
def test_the_file_read_back_has_the_logits_of_the_student(
    family: str, weight_type: str, tmp_path: Path
) -> None:
    tokenizer = words()
    net = student(family, tokenizer.inner.get_vocab_size())
    ids, _ = tokenizer.encode(TEXT)
    to_gguf(net, batch_of(ids), tmp_path / "student.gguf", tokenizer, weight_type)
    again: Any = gguf(str(tmp_path / "student.gguf"))
    assert again.config.model_type == family.replace("mistral", "llama")
    model: Any = net.model
    for name in ("rope_parameters", "layer_types", "sliding_window", "max_position_embeddings"):
        is_used = family != "gpt2" or name == "max_position_embeddings"
        expected = getattr(model.config, name, None) if is_used else None
        assert getattr(again.config, name, None) == expected, name
    difference = (log_p(Net(again, call), ids) - log_p(net, ids)).abs().max()
    assert difference == 0 if weight_type == "f32" else 0 < difference < 5


@llama_cpp.needed
@pytest.mark.parametrize("family", FAMILIES)
def test_llama_cpp_computes_the_same_logits(family: str, tmp_path: Path) -> None:
    check_logits(family, {}, tmp_path)


@llama_cpp.needed
@pytest.mark.parametrize(("family", "rope"), SCALINGS)
def test_llama_cpp_scales_rotary_frequencies_identically(
    family: str, rope: dict[str, Any], tmp_path: Path
) -> None:
    again, net = check_logits(family, {"rope_parameters": rope}, tmp_path)
    model: Any = net.model
    assert again.config.rope_parameters == model.config.rope_parameters
    ids = list(range(2, 200))
    assert torch.equal(log_p(Net(again, call), ids), log_p(net, ids))
    unscaled = student(family, model.config.vocab_size)
    assert (log_p(unscaled, ids) - log_p(net, ids)).abs().max() > 0.02


def check_logits(family: str, changed: dict[str, Any], tmp_path: Path) -> tuple[Any, Net]:
    """Compare a student with llama.cpp; return the file read back, and the student."""
    tokenizer = words(splitting("qwen2" if family.startswith("qwen") else "llama-bpe"))
    net = student(family, tokenizer.inner.get_vocab_size(), **changed)
    ids = tokenizer.encode(TEXT * 3)[0][:200]
    to_gguf(net, batch_of(ids), tmp_path / "student.gguf", tokenizer, "f32")
    with llama_cpp.serving(tmp_path / "student.gguf", exact=True) as url:
        (top,) = Server(f"{url}/v1", concurrency=1).top([ids], 8)
        completion = llama_cpp.request(
            url, "/v1/completions", prompt=TEXT, max_tokens=8, temperature=0
        )["choices"][0]["text"]
    again = gguf(str(tmp_path / "student.gguf"))
    for one in (net, Net(again, call)):
        round_activations(one)
    expected = log_p(net, ids)
    assert torch.equal(expected.argmax(-1), top.indices[:, 0].long())
    differences = (expected.gather(-1, top.indices.long()) - top.values).abs()
    assert differences.max() < (4e-3 if family == "gemma3_text" else 1e-3)
    start = tokenizer.encode(TEXT)[0]
    assert completion == tokenizer.decode(goes_on(net, start, 8)[len(start) :])
    return again, net


@llama_cpp.needed
@pytest.mark.parametrize("name", ["llama-bpe", "qwen2"])
def test_llama_cpp_and_the_file_read_back_cut_texts_identically(name: str, tmp_path: Path) -> None:
    tokenizer = words(splitting(name))
    net = student("qwen2", tokenizer.inner.get_vocab_size() + 3)
    to_gguf(net, batch_of([1, 2]), tmp_path / "student.gguf", tokenizer)
    again = load_tokenizer(str(tmp_path / "student.gguf"), [])
    assert (again.size, again.end) == (net.model.config.vocab_size, tokenizer.end)
    with llama_cpp.serving(tmp_path / "student.gguf") as url:
        for one in [TEXT, "<|im_start|>it'S <think>1234567 x", *odd_texts(300)]:
            actual = llama_cpp.request(
                url, "/tokenize", content=one, add_special=True, parse_special=True
            )["tokens"]
            assert actual == tokenizer.encode(one)[0] == again.encode(one)[0], repr(one)


def test_a_composing_tokenizer_is_written_with_a_warning(tmp_path: Path) -> None:
    def composing(inner: Any) -> None:
        splitting("qwen2")(inner)
        inner.normalizer = pytest.importorskip("tokenizers").normalizers.NFC()

    tokenizer = words(composing)
    net = student("qwen2", tokenizer.inner.get_vocab_size())
    with pytest.warns(UserWarning, match="does not compose characters"):
        to_gguf(net, batch_of([1, 2]), tmp_path / "student.gguf", tokenizer)


@pytest.mark.parametrize(
    ("family", "changed", "message"),
    [
        ("mistral", {"sliding_window": 64}, "Expected no sliding_window, got 64 for 400 positions"),
        ("qwen2", {"rope_parameters": LLAMA3}, "the type default or linear or yarn on all dim"),
        (
            "llama",
            {"rope_parameters": YARN | {"attention_factor": 1.0}},
            "unsupported yarn scaling of rotary frequencies. Expected a factor",
        ),
        ("qwen3", {"rope_parameters": YARN | {"beta_fast": 16.0}}, "unsupported yarn scaling"),
        ("llama", {"rope_parameters": LINEAR | {"factor": 0.5}}, "Expected a factor of at least 1"),
        ("qwen2", {"head_dim": 32}, "head_dim to be 64, got 128"),
        ("phi3", {"sliding_window": 64}, "Expected no sliding_window, got 64 for 400 positions"),
        ("phi3", {"rope_parameters": LONGROPE}, "Expected the type default on all dimensions"),
        (
            "phi3",
            {"rope_parameters": DEFAULT | {"partial_rotary_factor": 0.5}},
            "Expected the type default on all dimensions",
        ),
        ("gemma3_text", {"query_pre_attn_scalar": 16}, "this query_pre_attn_scalar. Expected 32"),
        ("gemma3_text", {"layer_types": ["full_attention"] * 7}, "does not have this layer_types"),
        (
            "gemma3_text",
            {"rope_parameters": dict.fromkeys(("full_attention", "sliding_attention"), DEFAULT)},
            "with rope_theta 10000 for sliding_attention, got",
        ),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        ("gpt2", {"activation_function": "relu"}, "Expected gelu_new as in llama.cpp, got relu"),
        ("qwen3", {"attention_bias": True}, r"the family qwen3 has no .*\.q_proj\.bias in GGUF"),
        (
            "llama",
            {"rope_parameters": LLAMA3 | {"high_freq_factor": 3.0}},
            "Expected the factors of Llama 3 for theta 500000 in rope_freqs.weight",
        ),
    ],
)
def test_variants_that_llama_cpp_does_not_have_are_refused(
    family: str, changed: dict[str, Any], message: str, tmp_path: Path
) -> None:
    tokenizer = words()
    net = student(family, tokenizer.size, **changed)
    with pytest.raises(ValueError, match=message):
        to_gguf(net, batch_of([1, 2]), tmp_path / "student.gguf", tokenizer)
    assert list(tmp_path.iterdir()) == []


def test_tensors_and_scalings_that_are_not_read_raise(tmp_path: Path) -> None:
    library = pytest.importorskip("gguf")
    tokenizer = words()
    net = student("llama", tokenizer.size)
    to_gguf(net, batch_of([1, 2]), tmp_path / "student.gguf", tokenizer, "f32")
    kinds = library.RopeScalingType
    for name, add, message in (
        (
            "bias",
            lambda writer: writer.add_tensor("blk.0.attn_q.bias", torch.zeros(128).numpy()),
            "unsupported tensor 'blk.0.attn_q.bias'",
        ),
        (
            "scaling",
            lambda writer: writer.add_rope_scaling_type(kinds.LONGROPE),
            "llama.rope.scaling.type: unsupported scaling .* Expected none or .*, got longrope",
        ),
        (
            "two_scalings",
            lambda writer: writer.add_rope_scaling_factor(2.0),
            "two scalings of rotary frequencies.* got both .linear.",
        ),
        (
            "attention",
            lambda writer: writer.add_rope_scaling_attn_factors(2.0),
            r"llama.rope.scaling.attn_factor: unsupported value. Expected 1\.0, got 2\.0",
        ),
    ):
        _copy(library, tmp_path / "student.gguf", tmp_path / f"{name}.gguf", add)
        with pytest.raises(ValueError, match=message):
            gguf(str(tmp_path / f"{name}.gguf"))


def test_a_window_of_phi3_is_not_read(tmp_path: Path) -> None:
    library = pytest.importorskip("gguf")
    tokenizer = words()
    net = student("phi3", tokenizer.size)
    to_gguf(net, batch_of([1, 2]), tmp_path / "student.gguf", tokenizer, "f32")
    _copy(
        library,
        tmp_path / "student.gguf",
        tmp_path / "window.gguf",
        lambda writer: writer.add_sliding_window(64),
        "phi3",
    )
    with pytest.raises(ValueError, match=r"unsupported window\. Expected at least the 400 pos"):
        gguf(str(tmp_path / "window.gguf"))


def _copy(
    library: Any, source: Path, target: Path, add: Callable[[Any], None], family: str = "llama"
) -> None:
    """Copy a GGUF file with an addition."""
    reader = library.GGUFReader(source)
    writer = library.GGUFWriter(target, family)
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        kinds = field.types
        writer.add_key_value(
            field.name, field.contents(), kinds[0], kinds[-1] if len(kinds) > 1 else None
        )
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    add(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
