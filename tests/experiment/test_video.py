"""Videos in recipes: more frames for the teacher, image teachers, torchvision, wrong data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import instil
from instil.plan.doctor import doctor
from instil.recipe import RecipeError
from tests.experiment.small import recipe, run_of

RECIPE: dict[str, Any] = {
    "task": "video_classification",
    "data": {
        "name": "npz:clips.npz",
        "columns": {"video": "clip", "label": "action", "image": "picture"},
        "batch_size": 20,
        "augment": {"crop": 1, "time_crop": 0.2},
    },
    "teacher": {"model": "video_cnn", "options": {"width": 4, "stages": 2}},
    "student": {
        "model": "video_cnn",
        "options": {"width": 4, "stages": 2, "temporal": "shift"},
        "input": {"frames": 3},
    },
    "objectives": {"kd": {}, "temporal_difference": {}, "temporal_relation": {}},
    "train": {"epochs": 12, "optimizer": {"lr": 1e-2}},
    "seeds": [0],
    "export": True,
}


def arrays(frames: int = 6) -> dict[str, Any]:
    """Clips (N, T, H, W, C) in uint8 that become brighter or darker, and their middle frames."""
    generator = np.random.default_rng(0)
    action = np.arange(80) % 2
    time = np.linspace(0, 200, frames)
    level = np.where(action[:, None], time, time[::-1])
    clip = level[:, :, None, None, None] + generator.uniform(0, 50, (80, frames, 6, 6, 3))
    # The first pixel shows the class to a network of single images.
    clip[:, :, :2, :2] = 200 * action[:, None, None, None, None]
    picture = np.moveaxis(clip[:, frames // 2], -1, 1)
    return {
        "clip": clip.astype(np.uint8),
        "action": action,
        "picture": picture.astype(np.uint8),
    }


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    np.savez("clips.npz", **arrays())
    return tmp_path


def test_a_teacher_of_all_frames_teaches_a_student_of_three(folder: Path) -> None:
    clips = recipe("baselines=[alone]", **RECIPE)
    assert doctor(clips)["problems"] == []
    result = run_of(clips, folder / "run")
    assert result["distilled"]["accuracy"]["mean"] > 0.9
    assert result["export"]["onnx"]["accuracy"] == result["distilled"]["accuracy"]["mean"]
    student = instil.load(folder / "run")
    video = torch.rand(2, 3, 6, 6, 6)
    changed = video.clone()
    # The student reads frames 1, 3 and 5.
    changed[:, :, ::2] = 0
    torch.testing.assert_close(student(changed), student(video))
    with pytest.raises(ValueError, match=r"video: wrong shape\. Expected \(N, 3, 6, 6, 6\)"):
        student(video[:, :, :4])


def changed(**sections: Any) -> Any:
    """Recipe with other entries in the sections of ``RECIPE``."""
    content = json.loads(json.dumps(RECIPE))
    for name, entries in sections.items():
        content[name] = {**content[name], **entries}
    return recipe(**content)


def test_an_image_teacher_of_a_video_student(folder: Path) -> None:
    teacher = {"model": "cnn", "options": {"width": 4, "stages": 2}, "reads": {"video": "image"}}
    content = RECIPE | {"teacher": teacher, "objectives": {"kd": {}}, "export": False}
    result = run_of(recipe("baselines=[]", **content), folder / "run")
    assert result["distilled"]["accuracy"]["mean"] > 0.9


def test_torchvision_models_are_teachers_and_students_untouched(folder: Path) -> None:
    pytest.importorskip("torchvision")
    np.savez("clips.npz", **(arrays() | {"clip": arrays()["clip"][..., :1]}))
    sections = {"model": "torchvision:r3d_18"}
    content = json.loads(json.dumps(RECIPE)) | {"teacher": sections}
    # Grey clips become colour clips, and the stages are feature levels.
    assert doctor(recipe("data.columns={video: clip, label: action}", **content))["problems"] == []


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((80, 1, 6, 6, 3), np.uint8), "video: one frame. Expected at least 2 frames"),
        (np.zeros((80, 6, 6), np.uint8), r"video: wrong shape. Expected \(N, C, T, H, W\)"),
        (np.full((80, 3, 6, 6, 6), 7.0), r"video: values out of range.*Divide 8-bit values by 255"),
        (np.full((80, 3, 6, 6, 6), np.nan), "video: values out of range"),
        (np.zeros((80, 6, 6, 6, 9), np.uint8), "video: 6 channels. Expected"),
    ],
)
def test_wrong_videos_are_refused_before_training(folder: Path, array: Any, message: str) -> None:
    np.savez("clips.npz", **(arrays() | {"clip": array}))
    with pytest.raises(RecipeError, match=message):
        run_of(recipe(**RECIPE), folder / "run")


def test_more_frames_than_the_data_have_are_refused(folder: Path) -> None:
    with pytest.raises(RecipeError, match=r"input\.frames: too many.*at most the 6 frames"):
        run_of(changed(student={"input": {"frames": 7}}), folder / "run")


def test_a_missing_modality_is_refused(folder: Path) -> None:
    with pytest.raises(RecipeError, match=r"teacher.*reads\.video: the batch has no 'flow'"):
        run_of(changed(teacher={"reads": {"video": "flow"}}), folder / "run")
    with pytest.raises(RecipeError, match=r"student.*reads\.video: the batch has no 'flow'"):
        run_of(changed(student={"reads": {"video": "flow"}}), folder / "run")


@pytest.mark.parametrize("layout", ["NTHWC", "NTCHW", "NCTHW", "NTHW"])
def test_layouts_of_arrays(folder: Path, layout: str) -> None:
    from instil.data.sources.npz import npz

    clip = arrays()["clip"]
    axes = {"NTHWC": (0, 1, 2, 3, 4), "NTCHW": (0, 1, 4, 2, 3), "NCTHW": (0, 4, 1, 2, 3)}
    stored = clip[..., 0] if layout == "NTHW" else clip.transpose(axes[layout])
    np.savez("other.npz", clip=stored, action=arrays()["action"])
    data = npz("other.npz", columns={"video": "clip", "label": "action"}, test=0.2, validation=0.2)
    batch = data.train.__getitems__(range(len(data.train)))
    rows = data.train.origin.numpy()
    expected = torch.from_numpy(clip[rows]).float().div(255).permute(0, 4, 1, 2, 3)
    expected = expected[:, :1] if layout == "NTHW" else expected
    torch.testing.assert_close(batch["video"], expected)
    assert data.train.facts["frames"] == 6
