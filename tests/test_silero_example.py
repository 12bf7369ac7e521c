"""The example with Silero VAD: its network, its weights and a short run."""

from __future__ import annotations

import importlib.util
import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from rich.console import Console
from scipy.io import wavfile

from instil import recipe as recipes
from instil.plan.run import run

EXAMPLE = Path(__file__).parents[1] / "examples" / "silero_vad"
RATE = 16000
HAS_PACKAGES = all(importlib.util.find_spec(name) for name in ("silero_vad", "onnx"))
needs_package = pytest.mark.skipif(
    not HAS_PACKAGES, reason="needs the packages silero-vad and onnx"
)


def module() -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLE / "voice_activity.py"))


def vowel(rng: np.random.Generator, num_samples: int) -> NDArray[np.float64]:
    """Harmonics with three formants, four syllables per second."""
    time = np.arange(num_samples) / RATE
    pitch = rng.uniform(90, 240)
    start = rng.uniform(0, 6)
    formants = (rng.uniform(300, 800), rng.uniform(1000, 2300), rng.uniform(2500, 3000))
    # The phase of a pitch that changes by 5 %.
    phase = 2 * np.pi * np.cumsum(pitch * (1 + 0.05 * np.sin(2 * np.pi * 3 * time + start))) / RATE
    wave = np.zeros(num_samples)
    for harmonic in range(1, 40):
        distances = [(harmonic * pitch - formant) / 80 for formant in formants]
        wave += (0.01 + sum(1 / (1 + d * d) for d in distances)) * np.sin(harmonic * phase)
    return wave * np.clip(np.sin(2 * np.pi * 4 * time + start) + 0.6, 0, None)


def noise(rng: np.random.Generator, num_samples: int) -> NDArray[np.float64]:
    """White noise and a tone."""
    tone = np.sin(2 * np.pi * rng.uniform(300, 2000) * np.arange(num_samples) / RATE)
    return rng.normal(size=num_samples) + rng.uniform(0, 3) * tone


def scaled(wave: NDArray[np.float64]) -> NDArray[np.float64]:
    return 0.1 * wave / np.sqrt((wave**2).mean())


def clips(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    for part, count in (("train", 32), ("validation", 4), ("test", 32)):
        for name, signal in (("noise", noise), ("speech", vowel)):
            path = folder / "clips" / part / name
            path.mkdir(parents=True)
            for row in range(count):
                wave = scaled(signal(rng, 8000))
                wavfile.write(path / f"{row}.wav", RATE, (20000 * wave).astype(np.int16))
    return folder / "clips"


@needs_package
def test_the_teacher_has_the_probabilities_of_the_package() -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    spec = importlib.util.find_spec("silero_vad")
    assert spec is not None
    assert spec.origin is not None
    graph = Path(spec.origin).parent / "data" / "silero_vad_16k_sequence.onnx"
    session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(1)
    waves = np.stack([scaled(vowel(rng, 5120)), scaled(noise(rng, 5120))]).astype(np.float32)
    with torch.no_grad():
        logits = module()["silero_vad"]().frame_logits(torch.from_numpy(waves))
    zeros = np.zeros((1, 1, 128), np.float32)
    for wave, row in zip(waves, logits, strict=True):
        # Each frame begins with the last 64 samples of the frame before it.
        frames = np.lib.stride_tricks.sliding_window_view(np.pad(wave, (64, 0)), 576)[::512]
        inputs = {"input": np.ascontiguousarray(frames), "h": zeros, "c": zeros}
        expected = session.run(["speech_probs"], inputs)[0]
        np.testing.assert_allclose(row.sigmoid().numpy(), expected, atol=1e-4)


@needs_package
def test_padding_does_not_change_the_teacher() -> None:
    teacher = module()["silero_vad"]().eval()
    wave = torch.from_numpy(vowel(np.random.default_rng(2), 5120)).float()[None]
    padded = torch.nn.functional.pad(wave, (0, 2048))
    with torch.no_grad():
        short = teacher(wave, torch.tensor([5120]))["logits"]
        longer = teacher(padded, torch.tensor([5120]))["logits"]
    torch.testing.assert_close(short, longer)


@needs_package
@pytest.mark.slow
def test_a_student_learns_the_activity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))
    changes = [f"data.files={clips(tmp_path)}", "seeds=[0]", "export=false", "train.epochs=40"]
    loaded = recipes.load(EXAMPLE / "voice_activity.yaml", changes)
    folder = run(loaded, tmp_path / "run", None, Console(quiet=True))
    result = json.loads((folder / "result.json").read_text())
    assert result["status"] == "complete"
    assert result["teacher"]["accuracy"]["mean"] > 0.75
    # With this teacher (86 % on two equal classes), a constant agrees with at most 64 %.
    assert result["distilled"]["agreement"]["mean"] > 0.75
