"""A LLaVA student learns the visual tokens of a LLaVA teacher through a recipe."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.experiment.small import lines, recipe, run_of
from tests.networks.sources.vision_folders import question, write_images, write_vision_model

transformers = pytest.importorskip("transformers")
pytest.importorskip("torchvision")


def write_models(folder: Path) -> None:
    """Write a teacher with clear predictions, and a student of one text layer."""
    teacher, processor = write_vision_model(folder / "teacher", "llava")
    with torch.no_grad():
        teacher.get_output_embeddings().weight.mul_(30)
    teacher.save_pretrained(folder / "teacher")
    config = teacher.config
    config.text_config.num_hidden_layers = 1
    torch.manual_seed(1)
    student = transformers.AutoModelForImageTextToText.from_config(config)
    student.save_pretrained(folder / "student")
    processor.save_pretrained(folder / "student")


@pytest.mark.parametrize("objectives", [{"llava_kd": {}}, {"llava_kd": {}, "forward_kl": {}}])
def test_the_losses_fall(
    objectives: dict[str, dict[str, float]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    write_models(tmp_path)
    names = write_images(tmp_path / "images", 8)
    rows = [question([name], "Which shade?", f"{index}.") for index, name in enumerate(names)]
    # A row without an image has no visual tokens.
    rows.append(question([], "Which one?", "None."))
    Path("chat.jsonl").write_text("\n".join(map(json.dumps, rows)))
    sections = {
        "task": "language",
        "data": {
            "name": "chat",
            "files": dict.fromkeys(("train", "validation", "test"), "chat.jsonl"),
            "tokenizer": "teacher",
            "length": 80,
            "batch_size": 3,
            "processes": 1,
        },
        "teacher": {"model": "transformers:teacher"},
        "student": {"model": "transformers:student"},
        "objectives": objectives,
        "train": {"steps": 60, "log_steps": 1, "optimizer": {"lr": 1e-2}},
        "seeds": [0],
        "baselines": [],
    }
    run_of(recipe(**sections), tmp_path / "run")
    records = [line for line in lines(tmp_path / "run") if line["arm"] == "distilled"]
    for name in objectives:
        losses = [record["losses"][f"student/{name}"] for record in records]
        # An epoch has three steps.
        assert sum(losses[-3:]) < 0.5 * sum(losses[:3])
