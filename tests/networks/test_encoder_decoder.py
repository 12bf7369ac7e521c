"""The encoder-decoder: padding, causality, inputs of three modalities, sizes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from instil.networks.encoder_decoder import encoder_decoder

IDS = torch.tensor([[3, 1, 4, 1, 5], [2, 6, 5, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
DECODER_IDS = torch.tensor([[0, 2, 3, 4], [0, 5, 6, 7]])


def model(**options: Any) -> Any:
    torch.manual_seed(0)
    return encoder_decoder(9, width=8, **options).eval()


def test_padding_of_the_encoder_and_later_tokens_change_nothing() -> None:
    net = model()
    logits = net(DECODER_IDS, MASK, input_ids=IDS)["logits"]
    other = IDS.clone()
    other[1, 3:] = 8
    torch.testing.assert_close(net(DECODER_IDS, MASK, input_ids=other)["logits"], logits)
    later = DECODER_IDS.clone()
    later[:, 3] = 1
    torch.testing.assert_close(net(later, MASK, input_ids=IDS)["logits"][:, :3], logits[:, :3])
    short = net(DECODER_IDS[1:], input_ids=IDS[1:, :3])["logits"]
    torch.testing.assert_close(short, logits[1:])


def test_frames_have_half_the_length_and_their_padding_changes_nothing() -> None:
    net = model(inputs="input_features", channels=6)
    frames = torch.randn(2, 6, 9)
    mask = (torch.arange(9) < torch.tensor([[9], [6]])).long()
    outputs = net(DECODER_IDS, mask, input_features=frames)
    assert outputs["encoder_last_hidden_state"].shape == (2, 5, 8)
    assert outputs["cross_attentions"][0].shape == (2, 2, 4, 5)
    assert outputs["cross_attentions"][0][1, :, :, 3:].abs().max() == 0


def test_an_image_is_a_sequence_of_patches() -> None:
    net = model(inputs="pixel_values", channels=3, patch=4)
    outputs = net(DECODER_IDS, pixel_values=torch.rand(2, 3, 8, 12))
    assert outputs["encoder_last_hidden_state"].shape == (2, 6, 8)
    assert len(outputs["encoder_hidden_states"]) == len(outputs["decoder_hidden_states"]) == 3


def test_the_number_of_parameters_is_that_of_the_documentation() -> None:
    assert sum(p.numel() for p in encoder_decoder(60).parameters()) == 63_360


def test_wrong_options_and_inputs_are_errors() -> None:
    with pytest.raises(ValueError, match=r"even multiple of heads \(3\)"):
        encoder_decoder(9, width=8, heads=3)
    with pytest.raises(ValueError, match="unknown inputs 'audio'"):
        encoder_decoder(9, inputs="audio")
    with pytest.raises(ValueError, match="Expected input_features, got input_ids"):
        model(inputs="input_features")(DECODER_IDS, input_ids=IDS)
