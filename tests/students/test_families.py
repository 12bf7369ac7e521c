"""Depth and width of the common families of decoders; a cut model can be built from its folder."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from instil.students.decoder_parts import attention_of, perceptron_of
from instil.students.depth import depth
from instil.students.layers import stack
from instil.students.lora import lora
from instil.students.width import width
from tests.students.families import (
    EXPERT_FAMILIES,
    FAMILIES,
    HEADS_OF_ALL_CHANNELS,
    cases,
    family,
)
from tests.students.nets import IDS, logits, observe


def reloaded(model: Any, folder: Path) -> Any:
    """Return the model that transformers reads from the folder of a model."""
    model.save_pretrained(folder)
    return type(model).from_pretrained(folder)


def same_text_with_cache(model: Any) -> bool:
    """Whether generation with and without a cache gives the same tokens."""
    texts = [
        model.generate(IDS["input_ids"], max_new_tokens=4, do_sample=False, use_cache=cache)
        for cache in (True, False)
    ]
    return torch.equal(*texts)


@pytest.mark.parametrize("name", cases())
def test_layers_keep_their_kind_in_a_shallower_model(name: str, tmp_path: Path) -> None:
    model = family(name)
    student = depth(copy.deepcopy(model), [1, 2])
    again = reloaded(student, tmp_path)
    torch.testing.assert_close(logits(again), logits(student))
    assert same_text_with_cache(student)
    # Removed layers that change nothing: the others must compute what they did before.
    for index in (0, 3):
        silence(stack(model)[1][index])
    torch.testing.assert_close(logits(model), logits(student), rtol=1e-4, atol=1e-4)


def silence(layer: nn.Module) -> None:
    """Set what a layer adds to the residual stream to zero."""
    writers = ("o_proj", "out_proj", "c_proj", "dense", "down_proj", "fc2", "dense_4h_to_h")
    for name, parameter in layer.named_parameters():
        parts = set(name.split("."))
        if parts & set(writers) or "post_feedforward" in name:
            nn.init.zeros_(parameter)
        # The norms after the branches of Gemma and OLMo 2 keep zero at zero.


@pytest.mark.parametrize("name", cases(sorted(set(FAMILIES) - set(EXPERT_FAMILIES))))
def test_idle_neurons_go_without_a_trace(name: str, tmp_path: Path) -> None:
    model = family(name)
    for layer in stack(model)[1]:
        part = perceptron_of(layer)
        assert part is not None
        columns = part.output.weight.data
        if type(part.output).__name__ == "Conv1D":
            columns = columns.T
        columns[:, ::2] = 0
        idle(part.inputs, columns.shape[1])
    neurons = columns.shape[1] // 2
    student = width(copy.deepcopy(model), neurons=neurons, observe=observe)
    torch.testing.assert_close(logits(student), logits(model), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logits(reloaded(student, tmp_path)), logits(student))


def idle(inputs: tuple[Any, ...], total: int) -> None:
    """Make every other neuron inactive: the value, or the gate and the bias, are zero."""
    for linear in inputs[-1:]:
        weight = linear.weight.data.T if type(linear).__name__ == "Conv1D" else linear.weight.data
        weight[-total::2] = 0
        if linear.bias is not None:
            linear.bias.data[-total::2] = 0


@pytest.mark.parametrize("name", cases())
def test_idle_heads_go_without_a_trace(name: str, tmp_path: Path) -> None:
    model = family(name)
    channels = 16 if name in HEADS_OF_ALL_CHANNELS else None
    if channels:
        with pytest.raises(ValueError, match="Set channels: 16, or another number of groups"):
            width(copy.deepcopy(model), groups=2)
    else:
        for layer in stack(model)[1]:
            attention = attention_of(layer)
            assert attention is not None
            # The values are the last rows; the first head of them shares its two queries.
            attention.inputs[-1].weight.data[-16:-8] = 0
    student = width(
        copy.deepcopy(model), groups=2 if channels else 1, channels=channels, observe=observe
    )
    if not channels and name != "olmo2":  # OLMo 2 divides by the norm of all heads
        torch.testing.assert_close(logits(student), logits(model), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logits(reloaded(student, tmp_path)), logits(student))
    assert same_text_with_cache(student)


@pytest.mark.parametrize("name", cases(sorted(set(FAMILIES) - set(HEADS_OF_ALL_CHANNELS))))
def test_narrower_streams_are_those_of_the_configuration(name: str, tmp_path: Path) -> None:
    model = family(name)
    student = width(copy.deepcopy(model), channels=16, observe=observe)
    assert student.config.hidden_size == 16
    torch.testing.assert_close(logits(reloaded(student, tmp_path)), logits(student))
    heads = student.get_output_embeddings().weight
    is_tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert heads.shape == (23, 16)
    assert (heads is student.get_input_embeddings().weight) is is_tied


def test_the_query_heads_of_interleaved_and_stacked_projections_are_cut_together() -> None:
    for name in HEADS_OF_ALL_CHANNELS:
        model = family(name)
        student = width(copy.deepcopy(model), groups=2, channels=16)
        # Without samples the first heads and channels stay.
        for cut, layer in zip(stack(student)[1], stack(model)[1], strict=True):
            new, old = attention_of(cut), attention_of(layer)
            assert new is not None
            assert old is not None
            for one, other in zip(new.inputs, old.inputs, strict=True):
                rows = list(range(48)) if name == "gpt_neox" else list(range(16))
                if name == "gpt2":
                    rows = [*range(16), *range(32, 48), *range(64, 80)]
                    torch.testing.assert_close(one.weight, other.weight[:16, rows])
                else:
                    torch.testing.assert_close(one.weight, other.weight[rows, :16])


def test_experts_and_unknown_layers_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="neurons: MixtralForCausalLM has layers without a known"):
        width(family("mixtral"), neurons=4)
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 23, "hidden_size": 16, "num_hidden_layers": 2, "state_size": 4}
    mamba = transformers.MambaForCausalLM(transformers.MambaConfig(**sizes))
    with pytest.raises(ValueError, match="width does not support the layers of MambaForCausalLM"):
        width(mamba, channels=8)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
def test_adapters_of_gpt2_reach_its_transposed_layers() -> None:
    model = lora(family("gpt2"), rank=2)
    names = {
        name.split(".lora_A")[0].split(".")[-1]
        for name, _ in model.named_parameters()
        if "lora_A" in name
    }
    assert names == {"c_attn", "c_proj", "c_fc"}
    assert torch.isfinite(logits(model)).all()
