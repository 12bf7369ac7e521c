"""Resemblyzer as a teacher of speaker embeddings, and a student that reads the same waveforms.

The weights are in the package: ``pip install --no-deps resemblyzer``. The package itself is not
imported, because its audio functions need packages that a network does not.
"""

import importlib.util
import math
from pathlib import Path

import torch
from torch import Tensor, nn

from instil.functional.log_mel import log_mel
from instil.networks.audio_classifier import audio_classifier

RATE = 16000
SIZE, HOP, BANDS = 400, 160, 40
LOUDNESS = 10 ** (-30 / 20)
"""Root mean square of the waveforms in the teacher's training: -30 dB of full scale."""


def slaney_filters() -> Tensor:
    """Mel filters (BANDS, SIZE / 2 + 1) of Slaney's Auditory Toolbox, each with the area 1.

    The scale is linear up to 1000 Hz with 15 units, and logarithmic above, 27 units for a factor
    of 6.4.
    """
    top = 15 + 27 * math.log(RATE / 2 / 1000) / math.log(6.4)
    units = torch.linspace(0, top, BANDS + 2, dtype=torch.float64)
    linear = units * 1000 / 15
    edges = torch.where(units < 15, linear, 1000 * 6.4 ** ((units - 15) / 27))
    frequencies = torch.arange(SIZE // 2 + 1, dtype=torch.float64) * RATE / SIZE
    rising = (frequencies - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - frequencies) / (edges[2:] - edges[1:-1])[:, None]
    area = (edges[2:] - edges[:-2]) / 2
    return (torch.minimum(rising, falling).clamp_min(0) / area[:, None]).float()


class Resemblyzer(nn.Module):
    """Three recurrent layers on mel energies; the embedding has the length 1."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(BANDS, 256, 3, batch_first=True)
        self.linear = nn.Linear(256, 256)
        self.register_buffer("filters", slaney_filters(), persistent=False)
        self.register_buffer("window", torch.hann_window(SIZE), persistent=False)

    def forward(self, audio: Tensor, audio_length: Tensor) -> dict[str, Tensor]:
        """Compute embeddings (N, 256) of standardised waveforms (N, T) at 16 kHz."""
        spectrum = torch.stft(
            LOUDNESS * audio,
            SIZE,
            HOP,
            window=self.window,
            pad_mode="constant",
            return_complex=True,
        )
        mels = spectrum.abs().square().transpose(1, 2) @ self.filters.T
        states, _ = self.lstm(mels)
        last = audio_length.div(HOP, rounding_mode="floor").clamp_max(states.shape[1] - 1)
        hidden = states[torch.arange(len(states), device=states.device), last]
        return {"embedding": nn.functional.normalize(self.linear(hidden).relu(), dim=1)}


def resemblyzer() -> nn.Module:
    """Build the teacher with the weights of the package."""
    package = importlib.util.find_spec("resemblyzer")
    if package is None or package.origin is None:
        raise ValueError("resemblyzer: not installed. pip install --no-deps resemblyzer")
    checkpoint = torch.load(Path(package.origin).parent / "pretrained.pt", map_location="cpu")
    model = Resemblyzer()
    # The other entries are parameters of the loss.
    weights = {name: checkpoint["model_state"][name] for name in model.state_dict()}
    model.load_state_dict(weights)
    return model


class VoiceEncoder(nn.Module):
    """Log-mel frames of a waveform, and the audio classifier of the package."""

    def __init__(self, classes: int, width: int, depth: int) -> None:
        super().__init__()
        self.body = audio_classifier(classes, BANDS, width, depth, embedding=256)

    def forward(self, audio: Tensor, audio_length: Tensor) -> dict[str, Tensor]:
        """Compute logits of speakers and embeddings (N, 256) of waveforms (N, T) at 16 kHz."""
        frames = log_mel(audio, RATE, BANDS)
        length = 1 + (audio_length - SIZE).clamp_min(0).div(HOP, rounding_mode="floor")
        outputs = self.body(frames, length.clamp_max(frames.shape[1]))
        return {"logits": outputs["logits"], "embedding": outputs["embedding"]}


def voice_encoder(classes: int, width: int = 32, depth: int = 3) -> nn.Module:
    """Build the student."""
    return VoiceEncoder(classes, width, depth)
