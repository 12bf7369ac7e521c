"""Encoder-decoders of transformers and of this package: logits, roles, sequences."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import instil
from instil.core import Batch, Net
from instil.engine import Optimization
from instil.generation.sequences import SequenceSearch, shift_right, special_tokens
from instil.networks.encoder_decoder import encoder_decoder
from instil.objectives.features.tinybert import TinyBERT
from instil.objectives.logits.forward_kl import ForwardKL
from instil.tasks.bases.encoder_decoder import call
from instil.training.fit import Training

transformers = pytest.importorskip("transformers")

SPECIAL = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
BART = {
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "d_model": 16,
    **SPECIAL,
}
T5 = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2, **SPECIAL}
FAMILIES: dict[str, dict[str, Any]] = {
    "t5": T5,
    "bart": {**BART, "max_position_embeddings": 64, "forced_eos_token_id": 1},
    "marian": {**BART, "max_position_embeddings": 64, "forced_eos_token_id": 1},
    "whisper": {**BART, "num_mel_bins": 8, "max_source_positions": 20},
}


def family(name: str, width: int = 16) -> Any:
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(
        name, vocab_size=40, **{**FAMILIES[name], "d_model": width}
    )
    kind = transformers.AutoModelForSpeechSeq2Seq
    if name != "whisper":
        kind = transformers.AutoModelForSeq2SeqLM
    return kind.from_config(config, attn_implementation="eager").eval()


def batch_of(name: str) -> Batch:
    generator = torch.Generator().manual_seed(1)
    label = torch.randint(2, 40, (4, 6), generator=generator)
    label[1, 3], label[1, 4:] = 1, -100
    batch: Batch = {"label": label, "valid": label != -100, "index": torch.arange(4)}
    if name == "whisper":
        return {"input_features": torch.randn(4, 8, 40, generator=generator), **batch}
    mask = (torch.arange(7) < torch.tensor([[7], [4], [7], [5]])).long()
    ids = torch.randint(2, 40, (4, 7), generator=generator)
    return {"input_ids": ids, "encoder_attention_mask": mask, **batch}


def own_logits(model: nn.Module, batch: Batch) -> Tensor:
    """Logits of the model itself."""
    ids = shift_right(batch["label"], special_tokens(model))
    if "input_features" in batch:
        return model(input_features=batch["input_features"], decoder_input_ids=ids)["logits"]
    return model(
        input_ids=batch["input_ids"],
        attention_mask=batch["encoder_attention_mask"],
        decoder_input_ids=ids,
    )["logits"]


@pytest.mark.parametrize("name", FAMILIES)
def test_logits_are_a_projection_and_equal_those_of_the_model(name: str) -> None:
    model, batch = family(name), batch_of(name)
    outputs = Net(model, call)(batch)
    torch.testing.assert_close(outputs["logits"], own_logits(model, batch))
    assert outputs["projection"].weight.shape == (40, 16)
    assert torch.equal(outputs["prediction"], outputs["logits"].argmax(-1))
    assert len(outputs["encoder_hidden_states"]) == len(outputs["hidden_states"]) == 3
    num_states = outputs["encoder_hidden_states"][-1].shape[1]
    assert outputs["cross_attentions"][1].shape == (4, 2, 6, num_states)
    assert outputs["attentions"][0].shape == (4, 2, 6, 6)
    assert outputs["encoder_attentions"][0].shape == (4, 2, num_states, num_states)


def test_a_bias_after_the_head_is_part_of_the_projection() -> None:
    model, batch = family("marian"), batch_of("marian")
    model.final_logits_bias.copy_(torch.randn(1, 40))
    outputs = call(model, batch)
    torch.testing.assert_close(outputs["logits"], own_logits(model, batch))
    assert "projection" in outputs


class Scaled(nn.Module):
    """Encoder-decoder whose logits are not a product of its states."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = encoder_decoder(40, width=16)
        self.special_tokens = self.inner.special_tokens
        self.get_encoder = self.inner.get_encoder
        self.get_decoder = self.inner.get_decoder
        self.get_output_embeddings = self.inner.get_output_embeddings

    def forward(self, decoder_input_ids: Tensor, attention_mask: Tensor, input_ids: Tensor) -> Any:
        outputs = self.inner(decoder_input_ids, attention_mask, input_ids=input_ids)
        return outputs | {"logits": 3 * outputs["logits"]}


def test_other_heads_are_found_and_their_own_logits_are_used() -> None:
    model, batch = Scaled().eval(), batch_of("t5")
    with pytest.warns(UserWarning, match="Scaled: its logits are not a matrix product"):
        outputs = call(model, batch)
    torch.testing.assert_close(outputs["logits"], own_logits(model, batch))
    assert "projection" not in outputs
    assert outputs["sequence"].shape == (4, 6)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("beams", [1, 3])
def test_generate_of_transformers_gives_sequences(name: str, beams: int) -> None:
    model, batch = family(name), batch_of(name)
    search = SequenceSearch(beams=beams, max_length=5)
    outputs = call(model, batch | {"sequence_search": search})
    assert outputs["candidates"].shape == (4, beams, 5)
    assert torch.equal(outputs["sequence"], outputs["candidates"][:, 0])
    if beams == 1:
        label = outputs["sequence"]
        again = call(model, batch | {"label": label})["prediction"]
        # BART and Marian end each sequence at the largest length.
        assert torch.equal(again[:, :4], label[:, :4])


def test_own_search_does_not_depend_on_padding_and_other_rows() -> None:
    torch.manual_seed(2)
    model, batch = encoder_decoder(40, width=16).eval(), batch_of("t5")
    search = {"sequence_search": SequenceSearch(beams=3, max_length=6)}
    whole = call(model, batch | search)["candidates"]
    row = {key: value[1:2] for key, value in batch.items()}
    row["input_ids"] = row["input_ids"][:, :4]
    row["encoder_attention_mask"] = row["encoder_attention_mask"][:, :4]
    assert torch.equal(call(model, row | search)["candidates"], whole[1:2])


@pytest.mark.parametrize("name", FAMILIES)
def test_a_pair_of_transformers_learns_with_token_and_hidden_state_losses(name: str) -> None:
    batch = batch_of(name)
    # The names of Hugging Face collators.
    names = {"encoder_attention_mask": "attention_mask", "label": "labels"}
    loader = [{names.get(key, key): value for key, value in batch.items() if key != "valid"}]
    result = instil.distil(
        family(name, 24),
        family(name),
        loader,
        {"kl": ForwardKL(), "states": TinyBERT(attention=0.0)},
        training=Training(epochs=10, optimizer=Optimization(options={"lr": 1e-2})),
        task="seq2seq",
        validation=loader,
        progress=False,
    )
    first, last = (result.records[index]["losses"] for index in (0, -1))
    assert set(first) == {"student/kl", "student/states"}
    assert all(last[loss] < first[loss] for loss in first)
    assert {"agreement", "sequence_agreement"} <= set(result.records[-1]["validation"])
