"""Models that compute their loss themselves, in recipes: detectors and transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from instil.plan.doctor import doctor
from instil.recipe import RecipeError, build
from instil.recipe.sections import Recipe
from tests.experiment.small import run_of

SIZE = 48
STEPS = {"steps": 2, "optimizer": {"lr": 1e-4}}
SMALL = {"min_size": SIZE, "max_size": SIZE}
TINY = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
TINY |= {"intermediate_size": 16}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_scenes(path: Path, count: int = 12) -> None:
    """JSON lines with grey pictures of one or two bright squares of two sizes."""
    generator = np.random.default_rng(0)
    rows = []
    for row in range(count):
        image = generator.uniform(0, 0.2, (1, SIZE, SIZE))
        labels, boxes = [], []
        for corner in range(1 + row % 2):
            kind = int(generator.integers(2))
            left = top = 2 + 22 * corner
            right = bottom = left + (10, 18)[kind]
            image[:, top:bottom, left:right] = 1
            labels.append(kind)
            boxes.append([left, top, right, bottom])
        rows.append({"picture": image.round(2).tolist(), "kinds": labels, "squares": boxes})
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def detection(model: str, options: dict[str, Any], **sections: Any) -> Recipe:
    columns = {"image": "picture", "label": "kinds", "box": "squares"}
    whole: dict[str, Any] = {
        "task": {"name": "detection", "kind": "boxes"},
        "data": {
            "name": "jsonl",
            "files": "scenes.jsonl",
            "columns": columns,
            "labels": "boxes",
            "classes": ["small", "large"],
            "batch_size": 4,
            "validation": 0.3,
            "test": 0.3,
        },
        "student": {"model": model, "options": options},
        "objectives": {"own_loss": {}},
        "train": STEPS,
        "seeds": [0],
        "baselines": [],
    }
    return build(whole | sections)


def test_hidden_boxes_are_no_background_for_a_yolo(folder: Path) -> None:
    pytest.importorskip("ultralytics")
    pytest.importorskip("pycocotools")
    write_scenes(folder / "scenes.jsonl")
    options = {"scale": [0.33, 0.0625, 1024]}
    student = {"model": "ultralytics:yolo11", "options": options, "input": {"size": 64}}
    recipe = detection("", {}, student=student)
    recipe.data.num_labeled = 2
    # Its forward has no parameter for labels, unlike that of the detectors of torchvision.
    message = r"^objectives\.own_loss: DetectionModel computes its loss from labels"
    with pytest.raises(RecipeError, match=message):
        doctor(recipe)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ssdlite320_mobilenet_v3_large", {}),
        ("fasterrcnn_mobilenet_v3_large_320_fpn", SMALL),
        ("retinanet_resnet50_fpn", SMALL),
        ("fcos_resnet50_fpn", SMALL),
    ],
)
@pytest.mark.slow
def test_detectors_of_torchvision_learn_from_their_own_loss(
    folder: Path, name: str, options: dict[str, Any]
) -> None:
    pytest.importorskip("torchvision")
    pytest.importorskip("pycocotools")
    write_scenes(folder / "scenes.jsonl")
    result = run_of(detection(f"torchvision:{name}", options), folder / "run")
    assert (result["status"], result["headline"], result["kind"]) == ("complete", "map", "boxes")
    assert 0 <= result["distilled"]["map"]["mean"] <= result["distilled"]["map_50"]["mean"] <= 1
    assert result["exports"]


def test_errors_of_detectors_come_before_training(folder: Path) -> None:
    pytest.importorskip("torchvision")
    pytest.importorskip("pycocotools")
    model = "torchvision:ssdlite320_mobilenet_v3_large"
    write_scenes(folder / "scenes.jsonl")
    few = detection(model, {})
    few.data.num_labeled = 2
    with pytest.raises(RecipeError, match=r"^objectives\.own_loss: SSD computes its loss from lab"):
        doctor(few)
    with pytest.raises(RecipeError, match=r"^task: kind is 'single', but the labels of 'jsonl'"):
        doctor(detection(model, {}, task="detection"))
    with pytest.raises(RecipeError, match=r"^student: CNN"):
        doctor(detection("cnn", {}))
    no_labels = detection(model, {}, objectives={"own_loss": {"weights": {"box": 2.0}}})
    with pytest.raises(ValueError, match=r"weights\.box: the model has no such loss"):
        doctor(no_labels)


def images(**sections: Any) -> Recipe:
    config = {"model_type": "vit", "image_size": 8, "patch_size": 4, "num_channels": 1} | TINY
    model = "transformers:AutoModelForImageClassification"
    whole: dict[str, Any] = {
        "data": {"name": "digits", "batch_size": 100},
        "student": {"model": model, "options": {"config": config}},
        "objectives": {"own_loss": {}},
        "train": {"epochs": 2, "optimizer": {"lr": 1e-2}},
        "seeds": [0],
        "baselines": ["alone"],
        "export": False,
    }
    return build(whole | sections)


def test_an_image_classifier_of_transformers_learns_from_its_own_loss(folder: Path) -> None:
    pytest.importorskip("transformers")
    result = run_of(images(), folder / "run")
    # Its own loss is the cross-entropy that the baseline is trained with.
    distilled, alone = (result[arm]["loss"]["mean"] for arm in ("distilled", "alone"))
    assert distilled == pytest.approx(alone, rel=1e-3)
    assert result["distilled"]["accuracy"]["mean"] > 0.3


def test_a_text_classifier_of_transformers_learns_from_its_own_loss(folder: Path) -> None:
    pytest.importorskip("transformers")
    config = {"model_type": "bert", "vocab_size": 80} | TINY
    student = {
        "model": "transformers:AutoModelForSequenceClassification",
        "options": {"config": config},
    }
    texts = images(
        task="text_classification",
        data={"name": "digit_tokens", "batch_size": 100},
        student=student,
        train={"steps": 2},
        baselines=[],
    )
    (probe,) = doctor(texts)["stages"][0]["objectives"].values()
    assert probe["value"] > 0
    assert run_of(texts, folder / "run")["status"] == "complete"


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"student": "mlp"},
            r"^objectives\.own_loss: MLP returns no loss in train mode\. Expected the role 'loss'",
        ),
        (
            {"data": {"name": "digits", "num_labeled": 50}, "baselines": []},
            r"^objectives\.own_loss: ViTForImageClassification computes its loss from labels, and "
            r"950 of 1000 training images have none",
        ),
    ],
)
def test_errors_of_classifiers_come_before_training(
    folder: Path, sections: dict[str, Any], message: str
) -> None:
    pytest.importorskip("transformers")
    with pytest.raises(RecipeError, match=message):
        doctor(images(**sections))


def test_the_kind_of_an_ambiguous_loss_is_set(folder: Path) -> None:
    pytest.importorskip("transformers")
    generator = np.random.default_rng(0)
    image = generator.random((40, 8, 8), dtype=np.float32)
    np.savez("yes.npz", image=image, label=(image.mean((1, 2)) > 0.5)[:, None].astype("float32"))
    binary = {
        "task": {"name": "classification", "kind": "binary"},
        "data": {"name": "npz:yes.npz", "batch_size": 10},
        "baselines": [],
    }
    with pytest.raises(RecipeError, match=r"^student\.options\.config\.problem_type: wrong"):
        doctor(images(**binary))
