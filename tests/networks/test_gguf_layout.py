"""Tests of ``instil.networks.gguf_layout``."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from instil.networks.gguf_family import FAMILIES
from instil.networks.gguf_layout import (
    interleave_halves,
    join_halves,
    to_llama_cpp,
    to_transformers_layout,
)

CONFIG = SimpleNamespace(num_attention_heads=4, num_key_value_heads=2)


def test_rotated_rows_are_reordered_to_halves() -> None:
    pairs = torch.tensor([[0.0], [4], [1], [5], [2], [6], [3], [7]])
    assert join_halves(pairs, 1).flatten().tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert join_halves(pairs, 2).flatten().tolist() == [0, 1, 4, 5, 2, 3, 6, 7]
    assert torch.equal(interleave_halves(join_halves(pairs, 2), 2), pairs)


@pytest.mark.parametrize("name", FAMILIES)
def test_weights_written_and_read_are_the_same(name: str) -> None:
    family = FAMILIES[name]
    for part in family.parts:
        shape = (16,) if part.endswith("norm") else (16, 8)
        weight = torch.rand(shape)
        path = f"blk.0.{part}.weight"
        written = to_llama_cpp(path, weight, family, CONFIG)
        read = to_transformers_layout(path, written, family, CONFIG)
        torch.testing.assert_close(read, weight)


def test_scales_of_gemma_are_written_plus_one_and_layers_of_gpt2_are_transposed() -> None:
    scale, weight = torch.rand(16), torch.rand(16, 8)
    written = to_llama_cpp("output_norm.weight", scale, FAMILIES["gemma3"], CONFIG)
    assert torch.equal(written, scale + 1)
    written = to_llama_cpp("blk.0.ffn_up.weight", weight, FAMILIES["gpt2"], CONFIG)
    assert torch.equal(written, weight.T)
