"""ONNX files of detectors of torchvision: outputs, objects of any number, errors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from instil.export.session import Session
from instil.networks import factory

OPTIONS = {"width": 4, "strides": [8], "pyramid_channels": 32, "topk_candidates": 20}


@pytest.mark.parametrize("name", ["FCOS", "RetinaNet"])
def test_the_suppression_is_part_of_the_graph(name: str, tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    pytest.importorskip("onnxruntime")
    from instil.export.detector_onnx import detector_to_onnx

    torch.manual_seed(0)
    facts = {"classes": 3, "channels": 3, "size": 64}
    options = OPTIONS | {"score_thresh": 0.0, "nms_thresh": 0.3, "detections_per_img": 30}
    model = factory.build(f"torchvision:{name}", options, **facts).eval()
    facts_of_file = detector_to_onnx(model, tmp_path / "detector.onnx", (64, 64))
    assert facts_of_file["file"] == "detector.onnx"
    assert facts_of_file["max_difference"] < 1e-3
    image = torch.rand(1, 3, 64, 64)
    outputs = Session(tmp_path / "detector.onnx", None)({"image": image})
    (expected,) = model(list(image))
    assert 0 < len(outputs["boxes"]) <= 30
    torch.testing.assert_close(outputs["boxes"], expected["boxes"], rtol=1e-3, atol=1e-3)
    assert torch.equal(outputs["labels"], expected["labels"] - 1)


def test_objects_with_equal_scores_may_change_places() -> None:
    from instil.export.detector_onnx import _difference

    boxes = torch.tensor([[0.0, 0, 10, 10], [20, 20, 40, 40]])
    one = {"boxes": boxes, "labels": torch.tensor([0, 1]), "scores": torch.tensor([0.5, 0.5])}
    other = {name: value.flip(0) for name, value in one.items()}
    assert _difference(one, other, 100) == 0
    moved = other | {"boxes": boxes.flip(0) + torch.tensor([2.0, 0, 0, 0])}
    assert _difference(one, moved, 100) == pytest.approx(0.02)
    assert _difference(one, other | {"labels": torch.tensor([2, 2])}, 100) == float("inf")


def test_other_models_raise(tmp_path: Path) -> None:
    from instil.export.detector_onnx import detector_to_onnx

    with pytest.raises(ValueError, match=r"^model: not a detector of torchvision\..* got Linear"):
        detector_to_onnx(nn.Linear(1, 1), tmp_path / "detector.onnx", (8, 8))
