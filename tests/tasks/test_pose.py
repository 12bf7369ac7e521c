"""Pose: the call; metrics compared with loops; networks and data."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from instil.core import Net
from instil.data.keypoint_images import KeypointImages
from instil.data.sources.npz import npz
from instil.data.sources.stick_arms import stick_arms
from instil.networks import factory
from instil.objectives.logits.kd import KD
from instil.tasks.pose import Pose, call
from instil.teachers.frozen import Frozen
from tests.experiment.small import recipe, run_of
from tests.tasks.samples import keypoints

VIT_POSE = {
    "model_type": "vitpose",
    "backbone_config": {
        "model_type": "vitpose_backbone",
        "image_size": [32, 32],
        "patch_size": [8, 8],
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "out_features": ["stage1"],
    },
}


def fixed_net(positions: Tensor) -> Net:
    return Net(nn.Identity(), lambda _, batch: {"logits": positions[batch["index"]]})


def test_metrics_equal_loops_over_the_keypoints() -> None:
    batch = keypoints() | {"index": torch.arange(12)}
    generator = torch.Generator().manual_seed(1)
    positions = batch["label"] + 3 * torch.randn(12, 3, 2, generator=generator)
    metrics, _ = Pose().evaluate(fixed_net(positions), [batch], Frozen(fixed_net(positions)))
    right, distances = [], []
    for image in range(12):
        pairs = []
        for keypoint in range(3):
            target = batch["label"][image, keypoint].tolist()
            if target[0] >= 0 and batch["valid"][image, keypoint]:
                pairs.append((positions[image, keypoint].tolist(), target))
        if pairs:
            sides = [[target[axis] for _, target in pairs] for axis in range(2)]
            reference = max(10.0, *(max(side) - min(side) for side in sides))
            for guess, target in pairs:
                distances.append(math.dist(guess, target))
                right.append(distances[-1] <= 0.1 * reference)
    assert 0 < sum(right) < len(right)
    assert metrics["pck"] == pytest.approx(sum(right) / len(right))
    assert metrics["distance"] == pytest.approx(sum(distances) / len(distances), rel=1e-5)
    assert metrics["agreement"] == 1


def test_heatmaps_are_logits_of_the_position() -> None:
    heatmaps = torch.full((1, 2, 4, 8), -20.0)
    heatmaps[0, 0, 3, 6] = 20.0
    heatmaps[0, 1, 1, 2] = 20.0
    image = torch.rand(1, 1, 8, 16)

    class Heatmaps(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return heatmaps

    outputs = call(Heatmaps(), {"image": image})
    # A cell is two pixels wide, and its position is its centre.
    expected = torch.tensor([[[13.0, 7.0], [5.0, 3.0]]])
    torch.testing.assert_close(outputs["logits"], expected)
    probability = heatmaps.flatten(2).softmax(-1).view_as(heatmaps)
    torch.testing.assert_close(outputs["x_logits"].softmax(-1), probability.sum(2))
    torch.testing.assert_close(outputs["y_logits"].softmax(-1), probability.sum(3))


def test_a_model_of_another_task_is_named() -> None:
    image = {"image": torch.rand(1, 1, 8, 8)}
    for output, form in ((torch.zeros(1, 3), r"the shape \(1, 3\)"), ([{}], "a list of 1 values")):
        model = ConstantOutput(output)
        with pytest.raises(ValueError, match=rf"Expected heatmaps \(N, K, height, .*got {form}"):
            call(model, image)


class ConstantOutput(nn.Module):
    def __init__(self, output: Any):
        super().__init__()
        self.output = output

    def forward(self, image: Tensor) -> Any:
        return self.output


def test_wrong_data_and_losses_raise() -> None:
    batch = keypoints() | {"index": torch.arange(12)}
    positions = torch.ones(12, 3, 2)
    positions[3, 1, 1] = torch.inf
    with pytest.raises(ValueError, match="1 of 36 keypoints have positions that are not finite"):
        Pose().evaluate(fixed_net(positions), [batch])
    unknown = batch | {"label": torch.full((12, 3, 2), -100.0)}
    with pytest.raises(ValueError, match="no keypoint to evaluate on has a label"):
        Pose().evaluate(fixed_net(torch.ones(12, 3, 2)), [unknown])
    with pytest.raises(ValueError, match=r"needs real labels \(N, K, 2\)"):
        Pose().check_data(batch | {"label": torch.ones(12, 3)})
    with pytest.raises(ValueError, match="the student gives 3 keypoints, the data has 2"):
        Pose().check_classes({"logits": torch.ones(12, 3, 2)}, ["a", "b"], whose="student")
    with pytest.raises(ValueError, match=r"objectives\.kd: KD is undefined for real-valued pose"):
        Pose().check({"kd": KD()})


def test_vit_pose_of_transformers() -> None:
    pytest.importorskip("transformers")
    facts = {"classes": 5, "channels": 3, "size": 32}
    model = factory.build(
        "transformers:AutoModelForPoseEstimation", {"config": VIT_POSE}, **facts
    ).eval()
    outputs = call(model, {"image": torch.rand(2, 3, 32, 32)})
    assert outputs["logits"].shape == (2, 5, 2)
    assert outputs["heatmaps"].shape == (2, 5, 16, 16)


def test_keypoints_of_an_archive(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    image = generator.random((20, 6, 8), dtype=np.float32)
    label = 6 * generator.random((20, 3, 2), dtype=np.float32)
    label[:, 0, 1] = np.nan
    np.savez(tmp_path / "a.npz", image=image, label=label, area=np.arange(20) + 1)
    data = npz(str(tmp_path / "a.npz"), task_name="pose", classes=["a", "b", "c"])
    assert (data.train.kind, data.train.classes) == ("real", ("a", "b", "c"))
    batch = data.train.__getitems__([0, 1])
    # A keypoint with one unknown number is unknown.
    assert (batch["label"][:, 0] == -100).all()
    assert (batch["label"][:, 1:] >= 0).all()
    assert batch["image_size"].tolist() == [[8, 6], [8, 6]]
    assert batch["area"].tolist() == [origin + 1 for origin in data.train.origin[:2].tolist()]
    with pytest.raises(ValueError, match=r"keypoints have the shape \(20, 6\)\. Expected"):
        KeypointImages(data.train.images, torch.zeros(20, 6))  # type: ignore[attr-defined]
    images, label = data.test.images, data.test.label  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"area has 2 rows\. Expected one for each image"):
        KeypointImages(images, label, entries={"area": torch.ones(2)})


def test_arms_are_bright_between_their_joints() -> None:
    batch = stick_arms(30, 32).train.__getitems__(range(30))
    middle = batch["label"][:, :2].mean(1).long()
    brightness = batch["image"][torch.arange(30), 0, middle[:, 1], middle[:, 0]]
    assert float(brightness.mean()) > 0.7
    assert float(batch["image"].mean()) < 0.3
    lengths = (batch["label"][:, 1:] - batch["label"][:, :-1]).norm(dim=-1)
    torch.testing.assert_close(lengths, torch.full((30, 2), 6.4))


def test_student_learns_from_images_with_and_without_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))
    data = {"name": "stick_arms", "poses": 24, "size": 8, "num_labeled": 8, "batch_size": 8}
    small = recipe(
        task="pose",
        data=data,
        teacher={"model": "pose_estimator", "options": {"width": 4}},
        student={"model": "pose_estimator", "options": {"width": 2}},
        objectives={"simcc": {}, "dwpose": {}, "mean_squared_error": {}, "logit_mse": {}},
        export=None,
    )
    result = run_of(small, tmp_path / "run")
    assert (result["status"], result["headline"]) == ("complete", "pck")
    for arm in ("teacher", "alone", "pseudo_labels", "distilled"):
        assert 0 <= result[arm]["pck"]["mean"] <= 1
        assert result[arm]["distance"]["mean"] >= 0
    assert result["export"]["onnx"]["max_difference"] < 1e-2
    text = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert all(f"student/{name}" in text for name in small.objectives)


def test_keypoints_of_a_teacher_in_another_order_are_refused() -> None:
    outputs = {"logits": torch.zeros(1, 2, 2)}
    Pose().check_classes(outputs, ["elbow", "hand"], ["elbow", "hand"])
    with pytest.raises(ValueError, match="keypoint 0 is 'hand' for the teacher and 'elbow' in"):
        Pose().check_classes(outputs, ["elbow", "hand"], ["hand", "elbow"])
