"""The example with Resemblyzer: its front end, its weights and a short run."""

from __future__ import annotations

import importlib.util
import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from scipy.io import wavfile

from instil import recipe as recipes
from instil.plan.run import run

EXAMPLE = Path(__file__).parents[1] / "examples" / "resemblyzer"


def module() -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLE / "voices.py"))


def test_the_filters_have_the_area_one_and_the_edges_of_the_scale() -> None:
    filters = module()["slaney_filters"]()
    assert filters.shape == (40, 201)
    # A sum over frequencies 40 Hz apart is the integral of a triangle that spans several of them.
    torch.testing.assert_close(filters[20:].sum(1) * 40, torch.ones(20), rtol=0.05, atol=0)
    assert filters.argmax(1).diff().min() >= 0


def voices(folder: Path) -> Path:
    """Sums of harmonics with the pitch and the decay of four speakers."""
    generator = np.random.default_rng(0)
    for part, count in (("train", 6), ("validation", 2), ("test", 2)):
        for speaker, pitch in enumerate((90, 130, 190, 260)):
            path = folder / "voices" / part / f"speaker {speaker}"
            path.mkdir(parents=True)
            for row in range(count):
                time = np.arange(12000) / 16000
                wave = generator.normal(0, 0.01, len(time))
                for harmonic in range(1, 20):
                    phase = 2 * np.pi * pitch * harmonic * time + row
                    wave += 0.3 * np.exp(-harmonic / (2 + speaker)) * np.sin(phase)
                wavfile.write(path / f"{row}.wav", 16000, (9000 * wave).astype(np.int16))
    return folder / "voices"


@pytest.mark.slow
def test_a_student_learns_the_embeddings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("resemblyzer") is None:
        pytest.skip("needs the package resemblyzer")
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))
    changes = [f"data.files={voices(tmp_path)}", "seeds=[0]", "train.epochs=20", "export=false"]
    loaded = recipes.load(EXAMPLE / "voices.yaml", changes)
    folder = run(loaded, tmp_path / "run", None, Console(quiet=True))
    result = json.loads((folder / "result.json").read_text())
    assert result["status"] == "complete"
    assert result["teacher"]["equal_error_rate"]["mean"] < 0.3
    assert result["distilled"]["agreement"]["mean"] > 0.5


@pytest.mark.slow
def test_the_teacher_tells_pitches_apart_at_any_loudness_and_padding() -> None:
    if importlib.util.find_spec("resemblyzer") is None:
        pytest.skip("needs the package resemblyzer")
    teacher = module()["resemblyzer"]().eval()
    wave = torch.randn(1, 8000, generator=torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(wave, (0, 4000))
    with torch.no_grad():
        short = teacher(wave, torch.tensor([8000]))["embedding"]
        longer = teacher(padded, torch.tensor([8000]))["embedding"]
    torch.testing.assert_close(short, longer, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(short.norm(dim=1), torch.ones(1))
    assert (short >= 0).all()
