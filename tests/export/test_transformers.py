"""Folder of a student: transformers reads it without instil and computes the same logits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from instil.core import Net
from instil.data.sources.text import text
from instil.export.transformers import to_transformers
from instil.networks.causal_transformer import causal_transformer
from instil.students.depth import depth
from instil.students.lora import lora
from instil.students.low_rank import low_rank
from instil.students.quantized import quantized
from instil.students.vocabulary import keep_tokens
from instil.tasks.language import call
from tests.students.nets import IDS, llama

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*is_gradient_checkpointing.*:FutureWarning"
)  # peft uses the older name in transformers


def adapted(model: nn.Module) -> nn.Module:
    model = lora(model, rank=2)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            # Small enough that merging in float32 stays within the tolerance on every processor.
            nn.init.normal_(parameter, std=0.1)
    return model


CHANGES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "none": lambda model: model,
    "depth": lambda model: depth(model, 2),
    "low_rank": lambda model: low_rank(model, 4),
    "lora": adapted,
    "quantized": lambda model: quantized(model, 4),
    "all": lambda model: quantized(low_rank(depth(model, 2), 4), 8),
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_program_reads_the_same_student(change: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    net = Net(CHANGES[change](llama()), call).eval()
    state = {name: value.clone() for name, value in net.state_dict().items()}
    written = to_transformers(net, IDS, tmp_path / "student")
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items()), (
        "the net is left as it is"
    )
    assert written["max_difference"] < 1e-3
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "student")
    with torch.no_grad():
        torch.testing.assert_close(model(**IDS).logits, net(IDS)["logits"], rtol=1e-4, atol=1e-4)


def test_it_continues_a_text_with_its_pruned_tokenizer(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    for index in range(5):
        (tmp_path / f"{index}.txt").write_text(
            f"{index}: the quick brown fox jumps over the lazy dog. " * 3
        )
    samples: Any = text(
        str(tmp_path), tokenizer="bpe:300", length=8, rows=2, held_out=2, prune=True
    ).train
    model = keep_tokens(llama(vocab_size=300, eos_token_id=5), samples.tokens)
    net = Net(model, call).eval()
    to_transformers(
        net,
        samples.__getitems__([0]) | {"index": torch.tensor([0])},
        tmp_path / "student",
        samples.tokenizer.pruned(samples.tokens),
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "student")
    words = samples.text_of(samples.tensors["input_ids"][0].tolist())
    ids = tokenizer(words, return_tensors="pt")["input_ids"]
    assert torch.equal(ids[0], samples.tensors["input_ids"][0])
    assert tokenizer.decode(ids[0]) == words
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "student")
    assert again.config.eos_token_id == tokenizer.eos_token_id == samples.end
    assert again.generate(ids, max_new_tokens=3, do_sample=False).shape[1] <= ids.shape[1] + 3


def test_a_model_of_another_library_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Expected a model of transformers, got CausalTransformer"):
        to_transformers(Net(causal_transformer(23), call), IDS, tmp_path)
