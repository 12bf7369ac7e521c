"""Text classification: the call on the package's network, plain modules and transformers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from instil.core import Net
from instil.networks.presets import taps_for
from instil.networks.text_transformer import text_transformer
from instil.tasks.text_classification import TextClassification, call
from tests.tasks.samples import TextProbe, texts


def test_a_plain_module_returns_logits_only() -> None:
    assert set(call(TextProbe().eval(), texts())) == {"logits"}


def test_text_transformer_returns_states_and_attentions() -> None:
    model = text_transformer(4, 9, length=5, width=8, depth=2)
    batch = texts()
    outputs = Net(model.eval(), call, taps_for(model))(batch)
    assert [state.shape for state in outputs["hidden_states"]] == [(12, 5, 8)] * 3
    for attention in outputs["attentions"]:
        assert attention.shape == (12, 2, 5, 5)
        torch.testing.assert_close(attention.sum(-1), torch.ones(12, 2, 5))
        padding = (batch["attention_mask"] == 0)[:, None, None]
        assert attention.masked_select(padding).abs().max() == 0, "no token attends to padding"
    assert [len(outputs[role]) for role in ("queries", "keys", "values")] == [2, 2, 2]
    torch.testing.assert_close(model.head(outputs["embedding"]), outputs["logits"])


def test_padding_does_not_change_the_outputs() -> None:
    model = text_transformer(4, 9, length=5, width=8).eval()
    ids = torch.tensor([[1, 4, 7]])
    alone = call(model, {"input_ids": ids})["logits"]
    padded = {
        "input_ids": torch.tensor([[1, 4, 7, 0, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1, 0, 0]]),
    }
    torch.testing.assert_close(call(model, padded)["logits"], alone)


def test_transformers_models() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=9,
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        num_labels=4,
        attn_implementation="eager",
    )
    config.output_attentions = True
    model = transformers.BertForSequenceClassification(config).eval()
    outputs = Net(model, call, taps_for(model))(texts())
    assert outputs["logits"].shape == (12, 4)
    assert [state.shape for state in outputs["hidden_states"]] == [(12, 5, 8)] * 3
    assert [part.shape for part in outputs["attentions"]] == [(12, 2, 5, 5)] * 2
    assert [part.shape for part in outputs["queries"]] == [(12, 5, 8)] * 2
    assert [len(outputs[role]) for role in ("keys", "values")] == [2, 2]
    torch.testing.assert_close(model.classifier(outputs["embedding"]), outputs["logits"])
    assert torch.equal(outputs["head"][0], model.classifier.weight)
    assert set(call(model, texts())) == {"logits", "hidden_states", "attentions", "embedding"}


def test_inputs_of_an_exported_student() -> None:
    ids = torch.tensor([[1, 4, 7]])
    batch = TextClassification().to_batch(ids, (5,))
    assert batch["attention_mask"].tolist() == [[1, 1, 1]]
    assert (
        TextClassification()
        .to_batch({"input_ids": ids, "attention_mask": ids - ids}, (5,))["attention_mask"]
        .sum()
        == 0
    )
    with pytest.raises(
        ValueError,
        match=r"text classification needs 'input_ids' in a batch\. Expected input_ids, "
        "attention_mask, got words",
    ):
        TextClassification().to_batch({"words": ids}, (5,))


def test_pixel_labels_raise() -> None:
    with pytest.raises(
        ValueError,
        match=r"text classification needs one label a sample\..*got torch.int64 \(12, 5\)",
    ):
        TextClassification().check_data(texts() | {"label": torch.zeros(12, 5, dtype=torch.int64)})


def test_a_text_beyond_the_length_raises() -> None:
    with pytest.raises(ValueError, match="a text of 6 tokens is longer than the 5"):
        text_transformer(2, 9, length=5)(torch.ones(1, 6, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"width: Expected a multiple of heads \(2\), got 9"):
        text_transformer(2, 9, width=9)


def test_the_first_value_of_a_tuple_is_the_logits() -> None:
    class Two(nn.Module):
        def forward(self, input_ids: torch.Tensor) -> tuple[torch.Tensor, int]:
            return input_ids.float(), 1

    assert call(Two(), {"input_ids": torch.ones(2, 3)})["logits"].shape == (2, 3)
