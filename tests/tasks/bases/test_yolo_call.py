"""YOLO detectors of ultralytics: losses, detections, predictions of anchors and checkpoints."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from instil.networks import factory
from instil.networks.presets import taps_for
from instil.objectives.logits.crosskd import CrossKD
from instil.recipe import build
from instil.tasks.bases.yolo_call import is_yolo
from instil.tasks.detection import call
from tests.experiment.small import run_of

if importlib.util.find_spec("ultralytics") is None:
    pytest.skip("needs the package ultralytics", allow_module_level=True)

FACTS: dict[str, Any] = {"classes": 10, "channels": 1, "size": 64}
SMALL = {"scale": [0.33, 0.0625, 1024]}
LABEL = torch.tensor([[3, -100], [-100, -100], [1, 2]])
NO_BOX = [-100.0] * 4
BOX = torch.tensor(
    [[[4.0, 8, 40, 50], NO_BOX], [NO_BOX, NO_BOX], [[4, 8, 40, 50], [20, 30, 60, 60]]]
)
NAMES = ("yolo11", "yolo26")


def yolo(name: str, **options: Any) -> Any:
    torch.manual_seed(0)
    return factory.build(f"ultralytics:{name}", SMALL | options, **FACTS)


def boxes() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(3, 1, 64, 96, generator=generator)
    return {"image": image, "label": LABEL, "box": BOX}


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_is_that_of_ultralytics_per_image(name: str) -> None:
    model = yolo(name).train()
    batch = boxes()
    parts = call(model, batch)["loss"]
    # Centre and size of the three boxes, as fractions of 96 x 64 pixels.
    fractions = torch.tensor([[22, 29, 36, 42], [22, 29, 36, 42], [40, 45, 40, 30]])
    targets = {
        "img": batch["image"],
        "batch_idx": torch.tensor([0.0, 2, 2]),
        "cls": torch.tensor([3.0, 1, 2]),
        "bboxes": fractions / torch.tensor([96.0, 64, 96, 64]),
    }
    losses, items = model(targets)
    torch.testing.assert_close(torch.stack(list(parts.values())), losses / 3)
    assert list(parts) == list(items)
    sum(parts.values()).backward()  # type: ignore[union-attr]
    assert all(value.grad is not None for value in model.parameters() if value.requires_grad)


def test_options_weight_the_parts_of_the_loss() -> None:
    default, heavy = (call(yolo("yolo11", **o).train(), boxes())["loss"] for o in ({}, {"cls": 5}))
    # ultralytics has the default 0.5.
    torch.testing.assert_close(heavy["cls_loss"], 10 * default["cls_loss"])
    torch.testing.assert_close(heavy["box_loss"], default["box_loss"])


@pytest.mark.parametrize("name", NAMES)
def test_detections_are_in_pixels_of_the_batch(name: str) -> None:
    model = yolo(name).eval()
    batch = boxes()
    with torch.no_grad():
        same, larger = call(model, batch), call(model, batch, size=(128, 192))
        batch["image"] = torch.nn.functional.interpolate(
            batch["image"], (128, 192), mode="bilinear"
        )
        expected = call(model, batch)
    for one in same["detections"]:
        assert len(one["labels"]) > 0
        assert one["boxes"].shape == (len(one["labels"]), 4)
        assert one["labels"].dtype == torch.int64
        assert (one["scores"].diff() <= 0).all()
    for one, other in zip(larger["detections"], expected["detections"], strict=True):
        assert len(one["labels"]) == len(other["labels"])
        torch.testing.assert_close(2 * one["boxes"], other["boxes"], rtol=1e-2, atol=0.5)


@pytest.mark.parametrize("name", NAMES)
def test_predictions_of_anchors_are_those_that_ultralytics_decodes(name: str) -> None:
    model = yolo(name).eval()
    head = model.model[-1]
    head.xyxy = True
    head.postprocess = lambda rows: rows  # keeps the order of the anchors
    batch = boxes()
    with torch.no_grad():
        decoded = model(batch["image"])[0]
        outputs = call(model, batch, roles={"anchor_boxes"})
    rows = decoded if model.end2end else decoded.transpose(1, 2)
    torch.testing.assert_close(outputs["anchor_boxes"], rows[..., :4], rtol=0, atol=1e-3)
    torch.testing.assert_close(outputs["anchor_logits"].sigmoid(), rows[..., 4:])


def test_objects_are_assigned_to_anchors_inside_of_them() -> None:
    outputs = call(yolo("yolo11").train(), boxes(), roles={"edge_logits"})
    assert outputs["edge_logits"].shape == (3, 126, 64)
    torch.testing.assert_close(outputs["target_boxes"][2], BOX[2])
    foreground, anchors = outputs["foreground"], outputs["anchors"]
    assert foreground.sum(1)[1] == 0
    assert 0 < foreground.sum(1)[0] <= 10
    centre = (anchors[0][foreground[0] > 0][:, :2] + anchors[0][foreground[0] > 0][:, 2:]) / 2
    assert ((centre > BOX[0, 0, :2]) & (centre < BOX[0, 0, 2:])).all()
    sides = (anchors[0, :, 2:] - anchors[0, :, :2]).unique(dim=0)
    assert sides.tolist() == [[8, 8], [16, 16], [32, 32]]


def test_the_feature_levels_are_those_that_the_head_reads() -> None:
    model = yolo("yolo11")
    assert is_yolo(model)
    assert taps_for(model) == {"features": ["model.16", "model.19", "model.22"]}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("yolo27n", {}, "ultralytics has no model 'yolo27n'. Did you mean yolo"),
        ("yolo26n-seg", {}, "ends in Segment26. Expected a YOLO detector"),
        ("yolo26n", {"boxx": 1}, "options.boxx: unknown option.*Did you mean box"),
        ("yolo26n", {"scale": [1, 2]}, "options.scale: Expected three positive numbers"),
        ("yolo26n", {"box": "a"}, "cannot be built: 'box=a' is of invalid type"),
    ],
)
def test_wrong_names_and_options_are_errors(
    name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        factory.build(f"ultralytics:{name}", options, **FACTS)


def test_a_size_that_is_no_multiple_of_the_stride_is_an_error() -> None:
    batch = boxes() | {"image": torch.rand(3, 1, 60, 60)}
    with pytest.raises(ValueError, match=r"input\.size: .* multiples of 32.* such as 64, got 60 x"):
        call(yolo("yolo11"), batch)


def test_weights_come_from_a_checkpoint_of_ultralytics(tmp_path: Path) -> None:
    trained = yolo("yolo11")
    torch.save({"model": trained, "train_args": {}}, tmp_path / "best.pt")
    name, options = "ultralytics:yolo11", SMALL | {"path": "best.pt"}
    arguments = {"pretrained": True, "base": tmp_path}
    same = factory.build(name, options, **arguments, **FACTS)
    for key, value in trained.state_dict().items():
        assert torch.equal(same.state_dict()[key], value), key
    other = factory.build(name, options, **arguments, **FACTS | {"classes": 4, "channels": 3})
    assert torch.equal(other.model[1].conv.weight, trained.model[1].conv.weight)
    with pytest.raises(ValueError, match=r"best\.pt has the weights of another network"):
        factory.build("ultralytics:yolov8n", {"path": "best.pt"}, **arguments, **FACTS)
    with pytest.raises(
        ValueError, match=r"options\.path: no file .*bset\.pt.* Did you mean best\.pt"
    ):
        factory.build(name, SMALL | {"path": "bset.pt"}, **arguments, **FACTS)


def test_code_in_a_checkpoint_is_not_executed(tmp_path: Path) -> None:
    class Executed:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "executed",))

    torch.save({"model": Executed()}, tmp_path / "best.pt")
    with pytest.raises(ValueError, match="cannot be built"):
        factory.build(
            "ultralytics:yolo11", {"path": "best.pt"}, pretrained=True, base=tmp_path, **FACTS
        )
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("name", NAMES)
def test_a_student_learns_from_a_teacher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    network = {"model": f"ultralytics:{name}", "options": SMALL}
    objectives: dict[str, Any] = {"own_loss": {}, "pkd": {}, "crosskd": {"position": None}}
    if name == "yolo11":
        objectives["dense_localisation_distillation"] = {"weight": 0.01}
    recipe = build(
        {
            "task": {"name": "detection", "kind": "boxes"},
            "data": {"name": "digit_objects", "scenes": 16, "held_out": 8, "batch_size": 8},
            "teacher": network,
            "student": network,
            "objectives": objectives,
            "train": {"epochs": 1},
            "seeds": [0],
        }
    )
    result = run_of(recipe, tmp_path / "run")
    assert result["status"] == "complete"
    assert 0 <= result["distilled"]["map"]["mean"] <= 1


def test_cross_kd_of_own_predictions_needs_no_features_of_the_head() -> None:
    assert CrossKD(position=None).needs["teacher"] == (("anchor_logits",), ("anchor_boxes",))
    assert ("class_features",) in CrossKD().needs["student"]


def test_the_import_changes_no_other_library() -> None:
    lines = (
        "import os, PIL.Image, torch, numpy",
        "state = lambda: (PIL.Image.open, torch.save, numpy.get_printoptions(), dict(os.environ))",
        "before = state()",
        "from instil.networks import factory",
        "factory.build('ultralytics:yolo11n', classes=2, channels=3, size=64)",
        "after = state()",
        "assert before[:3] == after[:3]",
        "assert 'OMP_NUM_THREADS' not in after[3]",
        "assert repr(torch.zeros(30)).count(chr(10)) == 1",
    )
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True, env=environment)
