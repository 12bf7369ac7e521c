"""ONNX files of detectors: outputs, objects of any number, comparison, errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import instil
from instil.core import Net, Outputs
from instil.export.session import Session
from instil.networks import factory
from instil.tasks.detection import Detection
from tests.experiment.small import run_of
from tests.experiment.test_box_detectors import DETR, RT_DETR, detection

OPTIONS = {"width": 4, "strides": [8], "pyramid_channels": 32, "topk_candidates": 20}
ALL_SCORES = {"score_thresh": 0.0, "nms_thresh": 0.3, "detections_per_img": 30}
TWO_STAGES = {"width": 4, "strides": [8], "pyramid_channels": 32, "box_detections_per_img": 8}
TRANSFORMER = "transformers:AutoModelForObjectDetection"


def net_of(name: str, options: dict[str, Any], size: int = 64, channels: int = 3) -> Net:
    torch.manual_seed(0)
    facts = {"classes": 3, "channels": channels, "size": size}
    model = factory.build(name, options, **facts)
    return Net(model.eval(), Detection("boxes").call)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("torchvision:FCOS", OPTIONS | ALL_SCORES),
        ("torchvision:RetinaNet", OPTIONS | ALL_SCORES),
        ("torchvision:FasterRCNN", TWO_STAGES | {"box_score_thresh": 0.0}),
        ("ultralytics:yolo11", {"scale": [0.33, 0.0625, 1024]}),
        ("ultralytics:yolo26", {"scale": [0.33, 0.0625, 1024]}),
        (TRANSFORMER, {"config": DETR}),
    ],
)
def test_the_graph_returns_the_detections_of_the_student(
    name: str, options: dict[str, Any], tmp_path: Path
) -> None:
    pytest.importorskip("torchvision")
    pytest.importorskip("onnxruntime")
    pytest.importorskip(name.partition(":")[0])
    from instil.export.detector_onnx import detector_to_onnx

    net = net_of(name, options)
    if name.startswith("ultralytics"):
        # Without training, all scores of a YOLO are below the threshold.
        for branches in (net.model.model[-1].cv3, getattr(net.model.model[-1], "one2one_cv3", ())):
            for branch in branches:
                nn.init.normal_(branch[-1].weight, std=2)
    image = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    facts = detector_to_onnx(net, {"image": image}, tmp_path / "detector.onnx")
    assert facts["file"] == "detector.onnx"
    assert facts["max_difference"] < 1e-3
    session = Session(tmp_path / "detector.onnx", ("boxes", "scores", "labels"))
    with torch.no_grad():
        expected = net({"image": image})["detections"]
    assert facts["num_objects"] == sum(len(each["scores"]) for each in expected)
    for index, objects in enumerate(expected):
        outputs = session({"image": image[index : index + 1]})
        assert len(objects["scores"]) > 0
        for key in ("boxes", "scores", "labels"):
            torch.testing.assert_close(outputs[key], objects[key], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("first", [0, 5])
def test_images_without_objects_are_empty(first: int, tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    pytest.importorskip("onnxruntime")
    from instil.export.detector_onnx import detector_to_onnx

    net = net_of("torchvision:FCOS", OPTIONS | ALL_SCORES)
    brightness = torch.linspace(0.1, 1, 6)[:, None, None, None]
    image = torch.rand(6, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * brightness
    with torch.no_grad():
        highest = torch.stack(
            [each["scores"].max() for each in net({"image": image})["detections"]]
        )
    net.model.score_thresh = float(highest.median())
    # The first image is the one that the exporter traces.
    order = highest.argsort(descending=first == 0)
    facts = detector_to_onnx(net, {"image": image[order]}, tmp_path / "detector.onnx")
    session = Session(tmp_path / "detector.onnx", None)
    counts = [len(session({"image": row[None]})["scores"]) for row in image[order]]
    assert 0 in counts
    assert facts["num_objects"] == sum(counts) > 0


@pytest.mark.parametrize(
    ("model", "options"), [("torchvision:FCOS", OPTIONS), (TRANSFORMER, {"config": RT_DETR})]
)
def test_a_run_writes_the_file_of_the_student(
    model: str, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("torchvision", "pycocotools", "onnxruntime", "transformers"):
        pytest.importorskip(package)
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    steps = {"steps": 30, "optimizer": {"lr": 3e-3}}
    objectives: dict[str, Any] = {"own_loss": {}}
    recipe = detection(model, options, objectives=objectives, train=steps, export=None)
    result = run_of(recipe, tmp_path / "run")
    assert result["exports"]
    facts = result["export"]["onnx"]
    assert facts["map"] == pytest.approx(result["distilled"]["map"]["mean"], abs=1e-3)
    student = instil.load(tmp_path / "run")
    session = Session(tmp_path / "run" / "student.onnx", ("boxes", "scores", "labels"))
    image = torch.rand(1, 1, 32, 32)
    outputs = session({"image": image})
    with torch.no_grad():
        (expected,) = student.net({"image": image})["detections"]
    torch.testing.assert_close(outputs["scores"], expected["scores"], rtol=1e-3, atol=1e-3)
    (entry,) = [e for e in session.session.get_modelmeta().custom_metadata_map if e == "classes"]
    assert entry


def objects_of(*rows: tuple[float, float, int]) -> dict[str, Tensor]:
    """Squares of ten pixels: left edge, score and class of each."""
    left = torch.tensor([row[0] for row in rows])
    return {
        "boxes": torch.stack([left, left, left + 10, left + 10], 1),
        "scores": torch.tensor([row[1] for row in rows]),
        "labels": torch.tensor([row[2] for row in rows]),
    }


def test_objects_with_equal_scores_may_change_places() -> None:
    from instil.export.detector_onnx import _distances

    one = objects_of((0, 0.5, 0), (20, 0.5, 1))
    assert _distances(one, objects_of((20, 0.5, 1), (0, 0.5, 0)), 100).tolist() == [0, 0]
    distances = _distances(one, objects_of((22, 0.5, 1), (0, 0.5, 0)), 100)
    assert distances.tolist() == [0, pytest.approx(0.02)]
    other = objects_of((0, 0.5, 2))
    assert _distances(one, other, 100).tolist() == [float("inf")] * 2
    none = {key: value[:0] for key, value in one.items()}
    assert _distances(one, none, 100).tolist() == [float("inf")] * 2
    assert _distances(none, one, 100).tolist() == []


def test_other_objects_raise() -> None:
    from instil.export.detector_onnx import _compare

    class Graph(nn.Module):
        name = "image"

        def forward(self, image: Tensor) -> tuple[Tensor, ...]:
            return tuple(objects_of((0, 0.5, 0), (20, 0.5, 1)).values())

    images = torch.zeros(2, 1, 50, 50)
    graph: Any = Graph()
    same: Any = lambda batch: objects_of((20, 0.5, 1), (0, 0.5, 0))  # noqa: E731
    assert _compare(graph, same, images) == {"max_difference": 0, "num_objects": 4}
    moved: Any = lambda batch: objects_of((20, 0.5, 1), (5, 0.5, 0))  # noqa: E731
    with pytest.raises(RuntimeError, match=r"^4 of 8 objects of PyTorch and ONNX differ\."):
        _compare(graph, moved, images)


def test_other_models_raise(tmp_path: Path) -> None:
    from instil.export.detector_onnx import detector_to_onnx

    def call(model: nn.Module, batch: dict[str, Tensor]) -> Outputs:
        return {"logits": model(batch["image"])}

    net = Net(nn.Identity(), call)
    with pytest.raises(ValueError, match=r"^net: it does not detect any number .* outputs logits"):
        detector_to_onnx(net, {"image": torch.rand(1, 3, 8, 8)}, tmp_path / "detector.onnx")
    assert not list(tmp_path.iterdir())
