"""Small audio files for the packaged recipes of speech, which name files of the user."""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path

import numpy as np
from scipy.io import wavfile

RATE = 4000
TONES = {"a": 440.0, "b": 880.0, "c": 1320.0, " ": 0.0}
TEXTS = ("ab", "ba c", "cab", "b a", "ac", "cb a", "bc", "c")


def wave(text: str, generator: np.random.Generator) -> np.ndarray:
    """A tone for each letter, and silence for a space, in noise."""
    parts = []
    for letter in text:
        time = np.arange(round((0.12 + 0.04 * generator.random()) * RATE)) / RATE
        parts += [0.4 * np.sin(2 * np.pi * TONES[letter] * time), np.zeros(RATE // 50)]
    signal = np.concatenate(parts)
    noisy: np.ndarray = signal + 0.02 * generator.standard_normal(len(signal))
    return noisy


@functools.cache
def folder() -> Path:
    """Folder with ``speech.jsonl``, ``keywords`` and the lists of speakers."""
    root = Path(tempfile.mkdtemp(prefix="instil-speech-"))
    generator = np.random.default_rng(0)
    lines: dict[str, list[str]] = {"speech": []}
    for row in range(48):
        text = TEXTS[row % len(TEXTS)]
        signal = (32767 * wave(text, generator)).clip(-32768, 32767).astype(np.int16)
        part = ("train", "train", "validation", "test")[row // 8 % 4]
        path = root / "keywords" / part / f"key {text[0]}" / f"{row}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        wavfile.write(path, RATE, signal)
        name = path.relative_to(root).as_posix()
        lines["speech"].append(json.dumps({"audio": name, "text": text}))
        lines.setdefault(part, []).append(json.dumps({"audio": name, "speaker": text[0]}))
    for name, rows in lines.items():
        (root / f"{name}.jsonl").write_text("".join(f"{row}\n" for row in rows))
    return root


def overrides(recipe: str) -> list[str]:
    """Changes of a packaged recipe of speech, so that it reads these files."""
    root = folder()
    common = [f"data.rate={RATE}", "data.num_labeled=8", "data.batch_size=8"]
    if recipe == "speaker_verification":
        files = {part: f"{root}/{part}.jsonl" for part in ("train", "validation", "test")}
        return [*common, f"data.files={json.dumps(files)}"]
    name = "keywords" if recipe == "audio_classification" else "speech.jsonl"
    if recipe in ("distilhubert", "dphubert"):
        sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16}
        sizes |= {"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
        common += [f"teacher.options.config.{key}={value}" for key, value in sizes.items()]
        common += ["teacher.options.config.conv_dim=[8,8,8,8,8,8,8]"]
        common += ["teacher.options.config.mask_time_prob=0.0"]
    return [*common, f"data.files={root / name}"]


RECIPES = (
    *("speech_recognition", "audio_classification", "speaker_verification"),
    *("distilhubert", "dphubert"),
)
