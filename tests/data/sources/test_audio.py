"""Audio files with transcripts or classes, and the errors for wrong ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.io import wavfile

from instil.data.audio_columns import BLANK_NAME
from instil.data.sources.audio import audio
from instil.data.sources.npz import npz
from instil.data.waveforms import read_waveform
from instil.functional.log_mel import log_mel

TEXTS = ("ba", "a b", "", "ab", "b", "aa")


def write(path: Path, seconds: float = 0.1, rate: int = 16000, channels: int = 1) -> None:
    """A tone as 16-bit WAV file."""
    time = np.arange(round(seconds * rate)) / rate
    tone = (8000 * np.sin(2 * np.pi * 440 * time)).astype(np.int16)
    path.parent.mkdir(parents=True, exist_ok=True)
    wavfile.write(path, rate, np.stack([tone] * channels, 1) if channels > 1 else tone)


def manifest(folder: Path, name: str = "train.jsonl") -> Path:
    """Six recordings of different lengths with texts; the third has none."""
    rows = []
    for row, text in enumerate(TEXTS):
        write(folder / "wav" / f"{row}.wav", 0.1 + 0.01 * row)
        rows.append({"audio": f"wav/{row}.wav", "text": text})
    path = folder / name
    if path.suffix == ".csv":
        path.write_text("audio,text\n" + "".join(f"{r['audio']},{r['text']}\n" for r in rows))
    else:
        path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return path


@pytest.mark.parametrize("name", ["train.jsonl", "train.csv"])
def test_a_manifest_gives_frames_lengths_and_symbols(tmp_path: Path, name: str) -> None:
    manifest(tmp_path, name)
    files = {"train": name, "validation": name, "test": name}
    data = audio(files, base=tmp_path, task_name="speech_recognition")
    assert data.kind == "sequence"
    assert data.classes == (BLANK_NAME, " ", "a", "b")
    assert data.train.facts == {"classes": 4, "features": 40}
    batch = data.train.__getitems__([0, 1, 2])
    assert batch["label"].tolist() == [[3, 2, -100], [2, 1, 3], [-100] * 3]
    # 0.1 seconds are 9 frames of 25 ms each 10 ms; one more for each 10 ms.
    assert batch["audio_length"].tolist() == [9, 10, 11]
    assert batch["audio"].shape == (3, 14, 40)
    wave = torch.from_numpy(read_waveform(tmp_path / "wav" / "1.wav", 16000))
    torch.testing.assert_close(batch["audio"][1, :10], log_mel(wave, 16000))
    assert (batch["audio"][0, 9:] == 0).all()


def test_waveforms_are_standardised_for_self_supervised_models(tmp_path: Path) -> None:
    manifest(tmp_path)
    data = audio(
        "train.jsonl", features="waveform", test=0.2, base=tmp_path, task_name="speech_recognition"
    )
    batch = data.train.__getitems__([0])
    wave = batch["audio"][0, : batch["audio_length"][0]]
    assert wave.ndim == 1
    assert float(wave.mean()) == pytest.approx(0, abs=1e-5)
    assert float(wave.square().mean()) == pytest.approx(1, abs=1e-3)


def test_folders_of_classes(tmp_path: Path) -> None:
    for name in ("no", "yes"):
        for row in range(4):
            write(tmp_path / "data" / name / f"{row}.wav")
    data = audio(
        "data", validation=0.25, test=0.25, base=tmp_path, task_name="audio_classification"
    )
    assert (data.kind, data.classes) == ("single", ("no", "yes"))
    assert data.train.__getitems__([0])["audio"].shape == (1, 9, 40)


def test_flac_files_need_soundfile(tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    time = np.arange(1600) / 16000
    soundfile.write(str(tmp_path / "a.flac"), np.sin(2 * np.pi * 440 * time) / 2, 16000)
    wave = read_waveform(tmp_path / "a.flac", 16000)
    np.testing.assert_allclose(wave, np.sin(2 * np.pi * 440 * time) / 2, atol=1e-3)


def one(folder: Path, line: str = '{"audio": "a.wav", "text": "a"}\n') -> None:
    (folder / "list.jsonl").write_text(line)
    audio("list.jsonl", base=folder, max_seconds=1, task_name="speech_recognition")


def test_wrong_files_are_refused_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"row 1: no audio file 'a\.wav'"):
        one(tmp_path)
    write(tmp_path / "a.wav", rate=8000)
    with pytest.raises(
        ValueError, match=r"has 8000 samples per second\. Expected 16000\. Set rate"
    ):
        one(tmp_path)
    write(tmp_path / "a.wav", channels=2)
    with pytest.raises(ValueError, match=r"has 2 channels\. Expected one\. Set convert: true"):
        one(tmp_path)
    write(tmp_path / "a.wav", seconds=0)
    with pytest.raises(ValueError, match=r"is empty\. Expected at least one sample"):
        one(tmp_path)
    wavfile.write(tmp_path / "a.wav", 16000, np.array([0.5, np.nan, 0.1], np.float32))
    with pytest.raises(ValueError, match=r"values that are not finite\. Expected samples in"):
        one(tmp_path)
    write(tmp_path / "a.wav", seconds=1.5)
    with pytest.raises(ValueError, match=r"1\.5 seconds\. Expected at most 1"):
        one(tmp_path)
    (tmp_path / "a.wav").write_bytes(b"no audio")
    with pytest.raises(ValueError, match="cannot be read as a"):
        one(tmp_path)
    write(tmp_path / "a.wav")
    with pytest.raises(ValueError, match=r"columns: .* has no column 'text'"):
        one(tmp_path, '{"audio": "a.wav"}\n')


def test_other_rates_and_channels_are_converted_on_request(tmp_path: Path) -> None:
    write(tmp_path / "a.wav", rate=8000, channels=2)
    wave = read_waveform(tmp_path / "a.wav", 16000, convert=True)
    expected = 8000 / 32768 * np.sin(2 * np.pi * 440 * np.arange(1600) / 16000)
    assert wave.shape == (1600,)
    # The filter of the resampling has an effect at both ends.
    np.testing.assert_allclose(wave[100:-100], expected[100:-100], atol=0.01)


def test_frames_of_an_archive_follow_one_another(tmp_path: Path) -> None:
    frames = np.arange(12, dtype=np.float16).reshape(6, 2)
    path = tmp_path / "a.npz"
    options = {
        "columns": {"audio": "frames", "label": "text"},
        "lengths": {"audio": "length"},
        "base": tmp_path,
        "task_name": "speech_recognition",
    }
    np.savez(path, frames=frames, length=[3, 1, 2], text=["ab", "b", ""], split=[0, 1, 2])
    data = npz("a.npz", **options)
    batch = data.train.__getitems__([0])
    assert batch["audio"].tolist() == [[[0, 1], [2, 3], [4, 5]]]
    assert data.validation.__getitems__([0])["audio_length"].tolist() == [1]
    assert data.classes == (BLANK_NAME, "a", "b")
    np.savez(path, frames=frames, length=[3, 1, 1], text=["ab", "b", ""], split=[0, 1, 2])
    with pytest.raises(ValueError, match="'length' does not divide the 6 rows"):
        npz("a.npz", **options)
    np.savez(path, frames=frames, length=[4, 0, 2], text=["ab", "b", ""], split=[0, 1, 2])
    with pytest.raises(ValueError, match="recording 1 is empty"):
        npz("a.npz", **options)
    frames[5] = np.nan
    np.savez(path, frames=frames, length=[3, 1, 2], text=["ab", "b", ""], split=[0, 1, 2])
    with pytest.raises(ValueError, match="recording 2 has values that are not finite"):
        npz("a.npz", **options)
    with pytest.raises(ValueError, match=r"lengths\.sound: no such column"):
        npz("a.npz", **(options | {"lengths": {"sound": "length"}}))


def test_bands_before_frames_are_put_in_order(tmp_path: Path) -> None:
    frames = np.arange(24, dtype=np.float32).reshape(4, 2, 3)
    np.savez(tmp_path / "a.npz", mel=frames, word=[0, 1, 0, 1], split=[0, 0, 1, 2])
    options: dict[str, Any] = {
        "columns": {"audio": "mel", "label": "word"},
        "axes": {"audio": [0, 2, 1]},
        "base": tmp_path,
        "task_name": "audio_classification",
    }
    batch = npz("a.npz", **options).train.__getitems__([1])
    assert torch.equal(batch["audio"][0], torch.from_numpy(frames[1].T))
    assert batch["audio_length"].tolist() == [3]
    with pytest.raises(ValueError, match=r"axes\.sound: no such column"):
        npz("a.npz", **(options | {"axes": {"sound": [0, 1]}}))
    for order in ([0, 1], [1, 0, 2], [0, 1, 1]):
        with pytest.raises(ValueError, match=r"axes\.audio: .* Expected the numbers 0 to 2"):
            npz("a.npz", **(options | {"axes": {"audio": order}}))


def test_joined_frames_become_channels_of_an_encoder(tmp_path: Path) -> None:
    frames = np.arange(12, dtype=np.float32).reshape(6, 2)
    length = [2, 1, 3]
    np.savez(
        tmp_path / "a.npz", frames=frames, length=length, text=["a", "b", "ab"], split=[0, 1, 2]
    )
    data = npz(
        "a.npz",
        columns={"input_features": "frames", "label": "text"},
        lengths={"input_features": "length"},
        axes={"input_features": [0, 2, 1]},
        base=tmp_path,
        task_name="seq2seq",
    )
    features = data.train.__getitems__([0])["input_features"]
    assert features.tolist() == [[[0.0, 2.0, 0.0], [1.0, 3.0, 0.0]]]


def test_some_training_rows_are_drawn_with_balanced_classes(tmp_path: Path) -> None:
    label = np.repeat([0, 1], [20, 4])
    split = np.concatenate([np.tile([0, 0, 0, 1], 5), [0, 0, 0, 2]])
    np.savez(tmp_path / "a.npz", x=np.arange(48.0).reshape(24, 2), y=label, split=split)
    options: dict[str, Any] = {"columns": {"x": "x", "label": "y"}, "base": tmp_path}
    whole = npz("a.npz", **options)
    some = npz("a.npz", rows=6, **options)
    assert len(whole.train) == 18
    assert some.train.label.bincount().tolist() == [3, 3]
    assert [len(some.validation), len(some.test)] == [len(whole.validation), len(whole.test)]
    drawn = some.train.__getitems__(range(6))["x"].tolist()
    assert drawn == npz("a.npz", rows=6, **options).train.__getitems__(range(6))["x"].tolist()
    assert all(row in whole.train.__getitems__(range(18))["x"].tolist() for row in drawn)
    assert len(npz("a.npz", rows=100, **options).train) == 18
