"""Silero VAD as a teacher of voice activity, and a student that reads the same waveforms.

The weights are in a graph of the package: ``pip install --no-deps silero-vad onnx``. The package
itself is not imported, because its audio functions need packages that a network does not.
"""

import importlib.util
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instil.functional.log_mel import log_mel
from instil.networks.audio_classifier import audio_classifier

RATE = 16000
FRAME, CONTEXT, PADDING = 512, 64, 64
"""Samples of a frame, of the end of the previous frame, and of the reflection at its end."""
BINS = 129
LOUDNESS = 0.1
"""Root mean square of the waveforms for the teacher, which depends on the loudness."""
SIZE, HOP, BANDS = 400, 160, 40


class SileroVAD(nn.Module):
    """Convolutions on the spectrum of each frame, and one recurrent layer over the frames."""

    def __init__(self) -> None:
        super().__init__()
        self.spectrum = nn.Conv1d(1, 2 * BINS, 256, stride=128, bias=False)
        sizes = [(BINS, 128, 1), (128, 64, 2), (64, 64, 2), (64, 128, 1)]
        self.encoder = nn.ModuleList(
            nn.Conv1d(inputs, outputs, 3, stride, padding=1) for inputs, outputs, stride in sizes
        )
        self.recurrent = nn.LSTM(128, 128, batch_first=True)
        self.output = nn.Linear(128, 1)

    def frame_logits(self, waveform: Tensor) -> Tensor:
        """Compute the logits (N, F) of speech in frames of 32 ms of waveforms (N, T) at 16 kHz.

        The last frame is padded with 0.
        """
        missing = -waveform.shape[1] % FRAME
        frames = F.pad(waveform, (CONTEXT, missing)).unfold(1, CONTEXT + FRAME, FRAME)
        num_samples, num_frames, _ = frames.shape
        padded = F.pad(frames.reshape(num_samples * num_frames, 1, -1), (0, PADDING), "reflect")
        real, imaginary = self.spectrum(padded).split(BINS, 1)
        states = (real.square() + imaginary.square()).sqrt()
        for layer in self.encoder:
            states = layer(states).relu()
        hidden, _ = self.recurrent(states.view(num_samples, num_frames, -1))
        logits: Tensor = self.output(hidden.relu())[..., 0]
        return logits

    def forward(self, audio: Tensor, audio_length: Tensor) -> dict[str, Tensor]:
        """Compute logits (N, 2) of noise and speech, from the mean probability of the frames.

        Args:
            audio: standardised waveforms (N, T) at 16 kHz.
            audio_length: (N,), number of valid samples.
        """
        probability = self.frame_logits(LOUDNESS * audio).sigmoid()
        num_frames = audio_length.div(FRAME, rounding_mode="floor").clamp_min(1)
        is_valid = torch.arange(probability.shape[1], device=audio.device) < num_frames[:, None]
        mean = (probability * is_valid).sum(1) / num_frames
        logit = torch.logit(mean, 1e-6)
        return {"logits": torch.stack([torch.zeros_like(logit), logit], 1)}


def silero_vad() -> nn.Module:
    """Build the teacher with the weights of the package."""
    package = importlib.util.find_spec("silero_vad")
    if package is None or package.origin is None:
        raise ValueError("silero_vad: not installed. pip install --no-deps silero-vad")
    model = SileroVAD()
    weights = graph_weights(Path(package.origin).parent / "data/silero_vad_16k_sequence.onnx")
    model.load_state_dict(weights)
    return model


def graph_weights(path: Path) -> dict[str, Tensor]:
    """Read the weights of the graph, with the names and the layout of the network."""
    import onnx

    graph = onnx.load(path).graph
    values: dict[str, Tensor] = {}
    for tensor in graph.initializer:
        values[tensor.name] = torch.from_numpy(onnx.numpy_helper.to_array(tensor).copy())
    _, inputs, states, bias, *_ = next(node for node in graph.node if node.op_type == "LSTM").input
    first_bias, second_bias = values[bias][0].chunk(2)
    weights = {name: value for name, value in values.items() if name.startswith("encoder.")}
    return weights | {
        "spectrum.weight": values["stft.forward_basis_buffer"],
        "recurrent.weight_ih_l0": torch_gates(values[inputs][0]),
        "recurrent.weight_hh_l0": torch_gates(values[states][0]),
        "recurrent.bias_ih_l0": torch_gates(first_bias),
        "recurrent.bias_hh_l0": torch_gates(second_bias),
        "output.weight": values["output.weight"][..., 0],
        "output.bias": values["output.bias"],
    }


def torch_gates(value: Tensor) -> Tensor:
    """Reorder the gates of ONNX (input, output, forget, cell) to those of PyTorch."""
    input_gate, output_gate, forget_gate, cell = value.chunk(4)
    return torch.cat([input_gate, forget_gate, cell, output_gate])


class VoiceActivity(nn.Module):
    """Log-mel frames of a waveform, and the audio classifier of the package."""

    def __init__(self, classes: int, width: int, depth: int) -> None:
        super().__init__()
        self.body = audio_classifier(classes, BANDS, width, depth, embedding=width)

    def forward(self, audio: Tensor, audio_length: Tensor) -> dict[str, Tensor]:
        """Compute logits (N, 2) of waveforms (N, T) at 16 kHz."""
        frames = log_mel(audio, RATE, BANDS)
        length = 1 + (audio_length - SIZE).clamp_min(0).div(HOP, rounding_mode="floor")
        outputs = self.body(frames, length.clamp_max(frames.shape[1]))
        return {"logits": outputs["logits"]}


def voice_activity(classes: int, width: int = 16, depth: int = 2) -> nn.Module:
    """Build the student."""
    return VoiceActivity(classes, width, depth)
