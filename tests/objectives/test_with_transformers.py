"""Losses on transformers models do not depend on padding."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from instil import catalogue
from instil.core import Batch, Net, Objectives, Outputs

NAMES = ("tinybert", "mobilebert", "patient_kd", "distilbert", "minilm", "minilmv2")


def call(model: nn.Module, batch: Batch) -> Outputs:
    answer = model(
        **{key: batch[key] for key in ("input_ids", "attention_mask")},
        output_hidden_states=True,
        output_attentions=True,
    )
    return {role: answer[role] for role in ("logits", "hidden_states", "attentions")}


def net(layers: int, width: int) -> Net:
    transformers: Any = pytest.importorskip("transformers")
    torch.manual_seed(layers)
    sizes = {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "intermediate_size": 64,
    }
    config = transformers.BertConfig(vocab_size=50, attn_implementation="eager", **sizes)
    parts = {"queries": "query", "keys": "key", "values": "value"}
    taps = {
        role: [f"bert.encoder.layer.{n}.attention.self.{part}" for n in range(layers)]
        for role, part in parts.items()
    }
    return Net(transformers.BertForSequenceClassification(config).eval(), call, taps)


@pytest.mark.slow
def test_padding_changes_nothing_from_the_model_on() -> None:
    student, teacher = net(2, 48), net(4, 96)
    ids, lengths = (
        torch.randint(1, 50, (4, 7), generator=torch.Generator().manual_seed(0)),
        torch.tensor([7, 5, 3, 7]),
    )
    mask = (torch.arange(7) < lengths[:, None]).long()
    objectives = Objectives({name: catalogue.find("objective", name)() for name in NAMES})
    losses = []
    with torch.no_grad():
        batch: Batch = {"input_ids": ids, "attention_mask": mask}
        objectives.build(student(batch), teacher(batch))
        longer = {key: F.pad(value, (0, 3)) for key, value in batch.items()}
        for inputs in (batch, batch | {"input_ids": torch.where(mask == 0, 3, ids)}, longer):
            losses.append(objectives(student(inputs), teacher(inputs), inputs).losses)
    for name in NAMES:
        assert losses[0][name] > 0
        assert torch.allclose(losses[1][name], losses[0][name], rtol=1e-4), name
        assert torch.allclose(losses[2][name], losses[0][name], rtol=1e-4), name
