"""An exported recogniser returns texts, and its files have the error rate of the run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from rich.console import Console

import instil
from instil import recipe as recipes
from instil.experiment.experiment import Experiment
from instil.plan.run import run
from tests.speech_files import overrides


@pytest.mark.slow
def test_a_loaded_student_transcribes_recordings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxscript")
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))
    changes = [*overrides("speech_recognition"), "seeds=[0]", "baselines=[]"]
    changes += ["data.num_labeled=null", "teacher=null", "train.epochs=60"]
    changes += ["train.evaluate_every=60", "student.options.width=32"]
    changes += ["train.optimizer.lr=0.01", "objectives={ctc: {}}", "data.augment.time_masks=0"]
    loaded = recipes.load("speech_recognition", changes)
    folder = run(loaded, tmp_path / "run", None, Console(quiet=True))
    result = json.loads((folder / "result.json").read_text())
    test = Experiment.from_recipe(loaded).splits.test
    batch = test.__getitems__(torch.arange(len(test)))
    inputs = {key: batch[key] for key in ("audio", "audio_length")}
    student = instil.load(folder)
    texts = student.predict(inputs)
    labels = ["".join(test.classes[i] for i in row[row >= 0].tolist()) for row in batch["label"]]
    equal = sum(text == label for text, label in zip(texts, labels, strict=True))
    rate = result["distilled"]["character_error_rate"]["mean"]
    assert (equal == len(test)) == (rate == 0)
    assert rate < 0.5, texts
    # One recording without padding has the same text as in the batch.
    length = int(batch["audio_length"][0])
    assert student.predict(batch["audio"][:1, :length]) == texts[:1]
    onnx = result["export"]["onnx"]
    assert onnx["character_error_rate"] == pytest.approx(rate)
