"""Sharded vision-language models read an image in each row, or in none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from instil.experiment.dry_run import dry_run
from instil.experiment.experiment import Experiment
from instil.recipe import RecipeError, build
from tests.networks.sources.vision_folders import question, write_images, write_vision_model

pytest.importorskip("torchvision")


def check(folder: Path, num_images: int, shard: bool) -> None:
    """Dry run on four rows; the first ``num_images`` have an image."""
    names = write_images(folder / "images", 4)
    rows = [
        question([name] if index < num_images else [], "Which shade?", str(index))
        for index, name in enumerate(names)
    ]
    file = folder / f"{num_images}.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    section = {
        "task": "language",
        "data": {
            "name": "chat",
            "files": dict.fromkeys(("train", "validation", "test"), str(file)),
            "tokenizer": str(folder / "llava"),
            "length": 80,
            "batch_size": 2,
            "processes": 1,
        },
        "student": {"model": f"transformers:{folder / 'llava'}"},
        "objectives": {"cross_entropy": {}},
        "train": {"steps": 1, "shard": shard},
        "baselines": [],
    }
    next(dry_run(Experiment.from_recipe(build(section))))


def test_some_rows_without_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))
    write_vision_model(tmp_path / "llava", "llava")
    check(tmp_path, num_images=4, shard=True)
    check(tmp_path, num_images=2, shard=False)
    with pytest.raises(RecipeError, match=r"^train: shard: 2 of 4 rows have no image"):
        check(tmp_path, num_images=2, shard=True)
