"""ONNX files of encoder and decoder: a search with them finds the sequences of the student."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from instil.core import Net
from instil.generation.sequences import SequenceSearch, beam_search, special_tokens
from instil.tasks.bases.encoder_decoder_export import encoder_decoder_graphs
from instil.tasks.seq2seq import Seq2Seq
from tests.schemes.pairs import net, pairs
from tests.tasks.samples import SequenceProbe

pytest.importorskip("onnxscript")


def test_a_search_with_the_graphs_finds_the_sequences_of_the_student(tmp_path: Path) -> None:
    from instil.export.onnx import to_onnx
    from instil.export.session import Session

    student, batch = net(8, 3).eval(), pairs()
    sessions = {}
    for name, part in encoder_decoder_graphs(student, batch).items():
        path = tmp_path / f"{name}.onnx"
        facts = to_onnx(part.net, part.batch, path, part.inputs, roles=part.roles)
        assert facts["max_difference"] < 1e-4
        sessions[name] = Session(path, part.roles)
    state = sessions["encoder"](batch)["encoder_state"]
    length = batch["label"].shape[1]

    def next_logits(ids: Tensor) -> Tensor:
        padded = torch.nn.functional.pad(ids, (0, length + 1 - ids.shape[1]))[:, :length]
        inputs = {
            "decoder_input_ids": padded,
            "encoder_state": state,
            "encoder_attention_mask": batch["encoder_attention_mask"],
        }
        return sessions["decoder"](inputs)["logits"][:, ids.shape[1] - 1]

    search = SequenceSearch(max_length=length)
    sequences = beam_search(next_logits, 16, special_tokens(student.model), search)[0]
    with torch.no_grad():
        assert torch.equal(sequences[:, 0], student(batch)["sequence"])


def test_a_model_without_an_encoder_of_its_own_is_an_error() -> None:
    probe = Net(SequenceProbe(), Seq2Seq().call)
    with pytest.raises(ValueError, match="SequenceProbe has no separate encoder"):
        encoder_decoder_graphs(probe, pairs())
