"""Networks that read their own keys of the batch: data and task of a user's module."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

import instil
from instil.catalogue import plugins
from instil.experiment.experiment import Experiment
from instil.plan.doctor import doctor
from instil.recipe import RecipeError
from tests.experiment.small import recipe, run_of

MODULE = '''
import torch
from torch import nn
from torch.nn import functional as F

from instil.core import Card
from instil.data.samples import TensorData
from instil.data.splits import splits
from instil.tasks.bases.classes import ClassTask


def color_and_depth(samples=90):
    """Color images 8 x 8, and depth images 6 x 6 with one channel, of two classes."""
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(samples) % 2
    rgb = torch.rand(samples, 3, 8, 8, generator=generator) * 0.5
    rgb[:, 0] += 0.5 * label[:, None, None]
    depth = torch.rand(samples, 1, 6, 6, generator=generator) * 0.5
    depth[:, :, :3] += 0.5 * label[:, None, None, None]
    tensors = {"rgb": rgb, "depth": depth}
    return splits({"train": TensorData(tensors, label, ("dark", "light"))}, 0.2, 0.2)


def clips(samples=60):
    """Clips of 8 frames with 1 x 4 x 4 pixels, and 20 points of them."""
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(samples) % 2
    video = torch.rand(samples, 1, 8, 4, 4, generator=generator)
    video[:, :, 4:] += label[:, None, None, None, None]
    train = TensorData({"video": video}, label, ("low", "high"), {"channels": 1})
    return splits({"train": train}, 0.2, 0.2)


def call(model, batch):
    return {"logits": model(batch["video"])}


class ClipClassification(ClassTask):
    """Classification of clips (N, C, T, H, W)."""

    card = Card("Classification of clips")
    title = "classification of clips"
    names = ("video", "label")
    inputs = ("video",)
    axes = {"frames": ("video", 2)}
    call = staticmethod(call)


class Frames(nn.Module):
    """Linear classifier of a fixed number of frames."""

    def __init__(self, frames, classes):
        super().__init__()
        self.linear = nn.Linear(frames * 16, classes)

    def forward(self, video):
        return self.linear(video.flatten(1))


def build(frames, classes):
    return Frames(frames, classes)
'''
CROSS_MODAL: dict[str, Any] = {
    "imports": ["reads_module"],
    "data": {"name": "reads_module:color_and_depth", "batch_size": 20},
    "teacher": {"model": "cnn", "options": {"width": 2}, "reads": {"image": "rgb"}},
    "student": {
        "model": "mlp",
        "options": {"width": 16},
        "reads": {"image": "depth"},
        "input": {"size": 8, "mean": [0.5], "std": [0.5]},
    },
    "seeds": [0],
    "export": True,
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder with the module; tasks that it defines are forgotten afterwards."""
    monkeypatch.setattr(plugins, "imported", {})
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reads_module.py").write_text(MODULE)
    return tmp_path


def test_a_teacher_of_color_images_teaches_a_student_of_depth_images(folder: Path) -> None:
    cross_modal = recipe("baselines=[alone]", "train.epochs=10", **CROSS_MODAL)
    assert doctor(cross_modal)["problems"] == []
    result = run_of(cross_modal, folder / "run")
    assert result["shape"] == [1, 6, 6]
    assert result["distilled"]["accuracy"]["mean"] > 0.8
    assert result["export"]["onnx"]["accuracy"] == result["distilled"]["accuracy"]["mean"]
    graph = onnx.load(folder / "run" / "student.onnx").graph
    assert [value.name for value in graph.input] == ["depth"]


def test_the_loaded_student_reads_its_own_key(folder: Path) -> None:
    run_of(recipe("baselines=[]", "train.epochs=1", **CROSS_MODAL), folder / "run")
    student = instil.load(folder / "run", trust_code=True)
    batch = Experiment.from_recipe(student.recipe).splits.test.__getitems__(range(5))
    expected = student(batch["depth"])
    assert expected.shape == (5, 2)
    torch.testing.assert_close(student({"depth": batch["depth"]}), expected)
    torch.testing.assert_close(student(batch), expected)
    torch.testing.assert_close(student.net(batch)["logits"].softmax(-1), expected)


@pytest.mark.parametrize(
    ("side", "reads", "message"),
    [
        (
            "student",
            {"image": "detph"},
            "^student.reads.image: the batch has no 'detph'. Expected one of rgb, depth, label",
        ),
        (
            "teacher",
            {"image": "lidar"},
            "^teacher.reads.image: the batch has no 'lidar'. Expected one of rgb, depth, label",
        ),
        (
            "teacher",
            {"imgae": "rgb"},
            "^teacher.reads.imgae: unknown key of classification. Expected one of image. "
            "Did you mean image",
        ),
    ],
)
def test_keys_are_checked_before_training(
    side: str, reads: dict[str, str], message: str, folder: Path
) -> None:
    sections = json.loads(json.dumps(CROSS_MODAL))
    sections[side]["reads"] = reads
    with pytest.raises(RecipeError, match=message):
        run_of(recipe(**sections), folder / "run")
    assert not list(folder.glob("run/checkpoint/*.safetensors"))


def clip_recipe(frames: int, **student: Any) -> dict[str, Any]:
    """Return sections of a teacher of all frames and a student of fewer."""
    return {
        "imports": ["reads_module"],
        "task": "clip_classification",
        "data": {"name": "reads_module:clips", "batch_size": 20},
        "teacher": {"model": "reads_module:build", "options": {"frames": 8}},
        "student": {
            "model": "reads_module:build",
            "options": {"frames": frames},
            "input": {"frames": frames},
            **student,
        },
        "seeds": [0],
        "export": True,
    }


def test_a_student_of_two_frames_learns_from_a_teacher_of_eight(folder: Path) -> None:
    result = run_of(recipe("baselines=[]", "train.epochs=4", **clip_recipe(2)), folder / "run")
    assert result["distilled"]["agreement"]["mean"] > 0.6
    assert result["export"]["onnx"]["accuracy"] == result["distilled"]["accuracy"]["mean"]
    student = instil.load(folder / "run", trust_code=True)
    video = torch.rand(3, 1, 8, 4, 4)
    changed = video.clone()
    changed[:, :, [0, 1, 3, 4, 5, 7]] = 0
    torch.testing.assert_close(student(changed), student(video))


def test_more_frames_than_the_data_have_are_refused(folder: Path) -> None:
    message = "input.frames: too many. Expected at most the 8 frames of the data, got 9"
    with pytest.raises(RecipeError, match=message):
        run_of(recipe(**clip_recipe(9)), folder / "run")


def test_a_task_without_frames_refuses_them(folder: Path) -> None:
    sections = json.loads(json.dumps(CROSS_MODAL))
    sections["student"]["input"] = {"frames": 4}
    with pytest.raises(RecipeError, match=r"^student.*input.frames: a model of classification"):
        run_of(recipe(**sections), folder / "run")
