"""Narrower layers: inactive parts are removed first, and outputs do not change."""

from __future__ import annotations

import copy

import pytest
import torch

from instil.networks.causal_transformer import causal_transformer
from instil.students.width import width
from tests.students.nets import IDS, llama, logits, observe


def test_idle_neurons_and_heads_go_without_a_trace() -> None:
    model = llama()
    for layer in model.model.layers:
        layer.mlp.up_proj.weight.data[::2] = 0
        layer.self_attn.v_proj.weight.data[:4] = (
            0  # the first key-value head, which two query heads share
        )
    student = width(copy.deepcopy(model), neurons=12, groups=1, observe=observe)
    torch.testing.assert_close(logits(student), logits(model))
    assert (
        student.config.intermediate_size,
        student.config.num_attention_heads,
        student.config.num_key_value_heads,
    ) == (12, 2, 1)
    assert student.model.layers[0].self_attn.q_proj.weight.shape == (8, 16)


@pytest.mark.parametrize("tied", [True, False])
def test_channels_that_carry_nothing_go_without_a_trace(tied: bool) -> None:
    model = llama(tie_word_embeddings=tied, rms_norm_eps=0.0)
    idle = torch.arange(0, 16, 2)
    for part in model.modules():
        if isinstance(part, torch.nn.Embedding):
            part.weight.data[:, idle] = 0
    for layer in model.model.layers:
        layer.self_attn.o_proj.weight.data[idle] = 0
        layer.mlp.down_proj.weight.data[idle] = 0
    student = width(copy.deepcopy(model), channels=8, observe=observe)
    narrow = width(copy.deepcopy(model), observe=observe)
    for part in narrow.modules():  # the root mean square is over half as many channels
        if type(part).__name__ == "LlamaRMSNorm":
            part.weight.data /= 2**0.5
    torch.testing.assert_close(logits(student), logits(narrow), rtol=1e-4, atol=1e-4)
    assert (student.get_output_embeddings().weight is student.get_input_embeddings().weight) is tied
    assert student.config.hidden_size == 8


def test_the_shape_needs_no_data_and_can_be_built_from_the_configuration() -> None:
    student = width(llama(), neurons=7, groups=1, channels=6)
    again = type(student)(student.config)
    again.load_state_dict(student.state_dict())
    assert torch.equal(logits(again.eval()), logits(student))
    student.generate(IDS["input_ids"], max_new_tokens=2, do_sample=False)


def test_what_cannot_be_narrowed_is_refused() -> None:
    with pytest.raises(ValueError, match="neurons: LlamaForCausalLM has 24; 25 cannot be kept"):
        width(llama(), neurons=25)
    with pytest.raises(ValueError, match="does not support the layers of CausalTransformer"):
        width(causal_transformer(11, depth=2), neurons=3)
