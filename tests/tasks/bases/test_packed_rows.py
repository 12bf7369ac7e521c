"""Rows of several texts: losses and gradients are those of one text per row."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from instil.core import Net
from instil.data.ragged_rows import RaggedRows
from instil.data.sources.chat import chat
from instil.networks.causal_transformer import causal_transformer
from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.objectives.logits.forward_kl import ForwardKL
from instil.schemes.offline.offline import Offline
from instil.tasks.bases import packed_rows
from instil.tasks.bases.causal_model import call
from instil.teachers.frozen import Frozen
from tests.data.chat_files import conversations, tokenizer_folder, write_jsonl

transformers: Any = pytest.importorskip("transformers")
SIZES = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
FAMILIES = {
    "llama": lambda size: transformers.LlamaConfig(vocab_size=size, **SIZES),
    "qwen2": lambda size: transformers.Qwen2Config(vocab_size=size, **SIZES),
    "qwen3": lambda size: transformers.Qwen3Config(vocab_size=size, head_dim=4, **SIZES),
    "gemma3": lambda size: transformers.Gemma3TextConfig(
        vocab_size=size,
        head_dim=4,
        sliding_window=8,
        layer_types=["sliding_attention", "full_attention"],
        **SIZES,
    ),
    "gpt2": lambda size: transformers.GPT2Config(
        vocab_size=size, n_embd=16, n_layer=2, n_head=2, n_positions=256
    ),
}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> RaggedRows:
    folder = tmp_path_factory.mktemp("chat")
    file = write_jsonl(folder / "rows.jsonl", conversations(12))
    data = chat(file, tokenizer_folder(folder / "tokenizer"), length=192).train
    assert isinstance(data, RaggedRows)
    return data


def model(family: str, size: int, seed: int, attention: str = "sdpa") -> nn.Module:
    torch.manual_seed(seed)
    if family == "own":
        return causal_transformer(size, 192)
    config = FAMILIES[family](size)
    network: nn.Module = transformers.AutoModelForCausalLM.from_config(
        config, attn_implementation=attention
    )
    return network.eval()


def losses_and_gradients(
    student: nn.Module, teacher: nn.Module, samples: RaggedRows
) -> tuple[dict[str, float], list[Tensor]]:
    objectives = {"cross_entropy": CrossEntropy(), "forward_kl": ForwardKL()}
    scheme = Offline(Net(student, call), Frozen(Net(teacher, call)), objectives)
    batch = samples.__getitems__(range(len(samples)))
    scheme.prepare(batch)
    (update,) = scheme.step(batch)
    student.zero_grad()
    sum(update.losses.values()).backward()  # type: ignore[union-attr]
    losses = {name: float(value.detach()) for name, value in update.losses.items()}
    return losses, [
        weight.grad.clone() for weight in student.parameters() if weight.grad is not None
    ]


@pytest.mark.parametrize("family", [*FAMILIES, "own"])
def test_losses_and_gradients_are_those_of_unpacked_rows(rows: RaggedRows, family: str) -> None:
    student = model(family, rows.vocabulary, 0)
    teacher = model(family, rows.vocabulary, 1)
    packed = rows.packed()
    assert len(packed) <= len(rows) / 2
    losses, gradients = losses_and_gradients(student, teacher, rows)
    packed_losses, packed_gradients = losses_and_gradients(student, teacher, packed)
    assert packed_losses == pytest.approx(losses, rel=1e-5)
    for gradient, packed_gradient in zip(gradients, packed_gradients, strict=True):
        assert (gradient - packed_gradient).abs().max() < 1e-5


def test_eager_attention_and_rows_joined_to_one(
    rows: RaggedRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = rows.packed()
    batch = packed.__getitems__(range(3))
    reference = call(model("llama", rows.vocabulary, 0), batch, ())["logits"]
    eager = call(model("llama", rows.vocabulary, 0, "eager"), batch, ())["logits"]
    torch.testing.assert_close(eager, reference, atol=1e-5, rtol=1e-5)
    network: Any = model("llama", rows.vocabulary, 0)
    call(network, batch, ())
    # The kernels of flash attention need a GPU; the rows are joined as for them.
    lengths = []
    body = network.model.forward

    def forward(input_ids: Tensor, **arguments: Any) -> Any:
        lengths.append(input_ids.shape)
        network.config._attn_implementation = "sdpa"
        return body(input_ids=input_ids, **arguments)

    monkeypatch.setattr(network.model, "forward", forward)
    monkeypatch.setattr(packed_rows, "_parameters", lambda module: {"position_ids", "use_cache"})
    network.config._attn_implementation = "flash_attention_2"
    joined = call(network, batch, ())["logits"]
    assert lengths == [(1, batch["input_ids"].numel())]
    is_token = batch["attention_mask"].bool()
    torch.testing.assert_close(joined[is_token], reference[is_token], atol=1e-5, rtol=1e-5)


def test_a_model_that_mixes_texts_is_refused(rows: RaggedRows) -> None:
    batch = rows.packed().__getitems__([0])
    config = transformers.MambaConfig(
        vocab_size=rows.vocabulary, hidden_size=8, num_hidden_layers=1, state_size=4
    )
    torch.manual_seed(0)
    mamba = transformers.MambaForCausalLM(config)
    with pytest.raises(ValueError, match=r"data.packing: MambaModel has no position_ids"):
        call(mamba, batch, ())

    class Mixing(nn.Module):
        def forward(self, input_ids: Tensor, position_ids: Tensor | None = None, **_: Any) -> Any:
            one_hot = nn.functional.one_hot(input_ids, rows.vocabulary).float()
            return {"logits": one_hot.cumsum(1)}

    with pytest.raises(ValueError, match=r"change one another's outputs in Mixing"):
        call(Mixing(), batch, ())
