"""Removal of layers: selection, and unchanged remaining parts."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from instil.networks.causal_transformer import causal_transformer
from instil.students.depth import depth
from tests.students.nets import IDS, llama, logits, observe


@pytest.mark.parametrize(
    ("by", "layers"), [("even", [0, 2, 4]), ("first", [0, 1, 2]), ("last", [2, 3, 4])]
)
def test_which_layers_are_kept(by: str, layers: list[int]) -> None:
    model = llama()
    student = depth(copy.deepcopy(model), 3, by)
    for position, layer in enumerate(layers):
        for name, weight in student.model.layers[position].named_parameters():
            assert torch.equal(weight, model.model.layers[layer].get_parameter(name))
    assert student.config.num_hidden_layers == 3
    shallow = depth(copy.deepcopy(model), layers)
    assert torch.equal(logits(student), logits(shallow))


def test_all_layers_are_the_model() -> None:
    model = llama()
    assert torch.equal(logits(depth(copy.deepcopy(model), 5, "even")), logits(model))


def test_a_layer_that_does_nothing_goes_first() -> None:
    model = llama()
    for count in (1, 3):
        nn.init.zeros_(model.model.layers[count].mlp.down_proj.weight)
        nn.init.zeros_(model.model.layers[count].self_attn.o_proj.weight)
    student = depth(copy.deepcopy(model), 3, "influence", observe)
    torch.testing.assert_close(logits(student), logits(model))


def test_text_is_generated_with_a_cache_of_as_many_layers() -> None:
    student = depth(llama(), 2)
    cached, plain = (
        student.generate(IDS["input_ids"], max_new_tokens=4, do_sample=False, use_cache=cache)
        for cache in (True, False)
    )
    assert torch.equal(cached, plain)


def test_ours_is_made_shallower_too() -> None:
    assert len(depth(causal_transformer(11, depth=4), 2).base_model.stages) == 2


def test_layers_that_are_not_there_are_refused() -> None:
    with pytest.raises(ValueError, match="LlamaForCausalLM has 5 layers; 6 cannot be kept"):
        depth(llama(), 6)
    for wrong in ([0, 5], [2, 1], [1, 1]):
        with pytest.raises(
            ValueError, match="layers are numbers from 0 to 4, each once and in order"
        ):
            depth(llama(), wrong)
    with pytest.raises(ValueError, match="has no list of layers of one kind"):
        depth(nn.Sequential(nn.Linear(2, 2)), 1)
