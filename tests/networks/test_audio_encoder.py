"""Networks of audio ignore padding."""

from __future__ import annotations

import pytest
import torch

from instil.networks.audio_classifier import audio_classifier
from instil.networks.audio_encoder import AudioEncoder, normalize_frames
from instil.networks.speech_recognizer import speech_recognizer


@pytest.mark.parametrize("gru", [0, 1])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_the_states_of_a_recording_do_not_depend_on_its_padding(gru: int, stride: int) -> None:
    torch.manual_seed(0)
    encoder = AudioEncoder(6, 8, 3, 5, stride, gru, 0.1).eval()
    audio = torch.randn(2, 13, 6)
    lengths = torch.tensor([13, 7])
    padded = audio.clone()
    padded[1, 7:] = torch.nan
    with torch.no_grad():
        layers, frames = encoder(padded, lengths)
        alone, count = encoder(audio[1:, :7], lengths[1:])
    assert frames.tolist() == [-(-13 // stride), -(-7 // stride)]
    assert len(layers) == 3 + gru + 1
    for layer, single in zip(layers, alone, strict=True):
        torch.testing.assert_close(layer[1, : count[0]], single[0])
        assert (layer[1, count[0] :] == 0).all()


def test_networks_have_the_parameters_of_their_documentation() -> None:
    sizes = []
    for model in (speech_recognizer(32, 40), audio_classifier(20, 40)):
        sizes.append(sum(parameter.numel() for parameter in model.parameters()))
    assert sizes == [203_936, 64_020]


def test_one_frame_is_enough_and_silence_is_finite() -> None:
    model = audio_classifier(3, 4, gru=1).eval()
    outputs = model(torch.zeros(2, 1, 4), torch.tensor([1, 1]))
    assert outputs["logits"].isfinite().all()
    assert normalize_frames(torch.zeros(1, 5, 2), torch.tensor([5])).isfinite().all()


def test_wrong_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="kernel: expected an odd number"):
        speech_recognizer(3, 4, kernel=4)
    with pytest.raises(ValueError, match="width: expected an even number"):
        speech_recognizer(3, 4, width=5)


def test_loudness_keeps_the_mean_spectrum_and_ignores_padding() -> None:
    audio = torch.randn(2, 6, 3) + torch.tensor([0.0, 2.0, -1.0])
    lengths = torch.tensor([6, 4])
    padded = audio.clone()
    padded[1, 4:] = torch.nan
    result = normalize_frames(padded, lengths, "loudness")
    valid = audio[1, :4]
    expected = (valid - valid.mean()) / valid.std(correction=0)
    torch.testing.assert_close(result[1, :4], expected)
    assert (result[1, 4:] == 0).all()
    # A louder recording, which adds a constant to log-mel frames, gives the same result.
    torch.testing.assert_close(normalize_frames(audio + 3, lengths, "loudness"), result)
    with pytest.raises(ValueError, match="normalize: expected bands or loudness, got band"):
        audio_classifier(3, 3, normalize="band")  # type: ignore[arg-type]
