"""Removal of layers: selection, and unchanged remaining parts."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from instil.networks.causal_transformer import causal_transformer
from instil.networks.encoder_decoder import encoder_decoder
from instil.students.depth import depth
from instil.students.layers import stack
from instil.tasks import seq2seq
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


def test_the_block_whose_input_and_output_agree_most_goes() -> None:
    model = llama()
    # Layer 2 undoes what layer 1 does, so that each alone has a large influence.
    model.model.layers[1].register_forward_hook(lambda _module, _args, output: output.flip(-1))
    model.model.layers[2].register_forward_hook(lambda _module, _args, output: output.flip(-1))
    for layer in model.model.layers[1:3]:
        nn.init.zeros_(layer.mlp.down_proj.weight)
        nn.init.zeros_(layer.self_attn.o_proj.weight)
    whole = logits(model)
    student = depth(copy.deepcopy(model), 3, "block", observe)
    torch.testing.assert_close(logits(student), whole)


def test_a_block_of_no_layers_is_the_model() -> None:
    model = llama()
    student = depth(copy.deepcopy(model), 5, "block", observe)
    assert torch.equal(logits(student), logits(model))


def test_text_is_generated_with_a_cache_of_as_many_layers() -> None:
    student = depth(llama(), 2)
    cached, plain = (
        student.generate(IDS["input_ids"], max_new_tokens=4, do_sample=False, use_cache=cache)
        for cache in (True, False)
    )
    assert torch.equal(cached, plain)


def test_ours_is_made_shallower_too() -> None:
    assert len(depth(causal_transformer(11, depth=4), 2).base_model.stages) == 2


@pytest.mark.parametrize("name", ["Hubert", "Wav2Vec2"])
def test_convolutions_of_a_speech_model_are_not_its_layers(name: str) -> None:
    """A model with one class of convolutions, and with one convolution per layer."""
    transformers = pytest.importorskip("transformers")
    convolutions = {"conv_dim": (8, 8, 8), "conv_kernel": (10, 3, 3), "conv_stride": (5, 2, 2)}
    config = getattr(transformers, f"{name}Config")(
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=16,
        feat_extract_norm="layer",
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
        **convolutions,
    )
    model = getattr(transformers, f"{name}Model")(config)
    student = depth(model, 2)
    assert len(student.encoder.layers) == student.config.num_hidden_layers == 2
    assert len(student.feature_extractor.conv_layers) == 3


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


def encoder_decoders() -> dict[str, Any]:
    transformers = pytest.importorskip("transformers")
    special = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    sizes = {"vocab_size": 23, "d_model": 16, **special}
    bart = {"encoder_layers": 5, "decoder_layers": 4, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    t5 = {"num_layers": 5, "num_decoder_layers": 4, "d_ff": 24, "d_kv": 8, "num_heads": 2}
    configs = {
        "t5": transformers.T5Config(**sizes, **t5),
        "bart": transformers.BartConfig(
            **sizes, **bart, **heads, bos_token_id=0, forced_eos_token_id=1
        ),
    }
    torch.manual_seed(0)
    models = {
        name: transformers.AutoModelForSeq2SeqLM.from_config(config).eval()
        for name, config in configs.items()
    }
    return models | {"own": encoder_decoder(23, width=16, depth=5, decoder_depth=4).eval()}


@pytest.mark.parametrize("name", ["t5", "bart", "own"])
def test_encoder_and_decoder_of_an_encoder_decoder_lose_layers(name: str) -> None:
    model = encoder_decoders()[name]
    student = depth(copy.deepcopy(model), encoder_layers=3, decoder_layers=[0, 3])
    for part, layers in (("get_encoder", [0, 2, 4]), ("get_decoder", [0, 3])):
        new, old = (stack(getattr(net, part)())[1] for net in (student, model))
        assert len(new) == len(layers)
        for layer, index in zip(new, layers, strict=True):
            for key, weight in layer.named_parameters():
                assert torch.equal(weight, old[index].get_parameter(key))
    batch = {
        "input_ids": IDS["input_ids"],
        "encoder_attention_mask": IDS["attention_mask"],
        "label": IDS["input_ids"][:, :4],
    }
    outputs = seq2seq.call(student, batch)
    assert len(outputs["hidden_states"]) == 3
    assert len(outputs["encoder_hidden_states"]) == 4
    assert outputs["sequence"].shape == (4, 4)
    whole = depth(copy.deepcopy(model), encoder_layers=5)
    expected = seq2seq.call(model, batch)["logits"]
    assert torch.equal(seq2seq.call(whole, batch)["logits"], expected)


def test_wrong_options_for_an_encoder_decoder_are_errors() -> None:
    models = encoder_decoders()
    with pytest.raises(ValueError, match="first layer holds the position biases"):
        depth(models["t5"], decoder_layers=2, by="last")
    with pytest.raises(ValueError, match="not for an encoder-decoder"):
        depth(models["own"], 2, decoder_layers=2)
    for model in models.values():
        with pytest.raises(ValueError, match=r"layers: .* is an encoder-decoder\. Set encoder_lay"):
            depth(model, 2)
    with pytest.raises(ValueError, match="LlamaForCausalLM is not an encoder-decoder"):
        depth(llama(), decoder_layers=2)
    with pytest.raises(ValueError, match="layers: missing"):
        depth(llama())
