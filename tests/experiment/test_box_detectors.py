"""Detectors of torchvision and transformers as teachers and students, in recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from instil import distil
from instil.experiment.experiment import Experiment
from instil.networks import factory
from instil.plan.doctor import doctor
from instil.recipe import RecipeError, build
from instil.recipe.input_section import InputConfig
from instil.recipe.sections import Recipe
from instil.tasks.bases.box_scores import box_scores
from instil.tasks.detection import Detection, call
from tests.experiment.small import run_of

FACTS = {"classes": 10, "channels": 1, "size": 32}
SMALL = {"width": 4, "strides": [8], "pyramid_channels": 32}
DENSE = SMALL | {"topk_candidates": 20, "detections_per_img": 10}
BACKBONE = {"embedding_size": 8, "depths": [1, 1, 1, 1], "layer_type": "basic"}
BACKBONE |= {"hidden_sizes": [8, 8, 16, 16]}
DECODER = {"encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16}
DECODER |= {"decoder_ffn_dim": 16, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
DETR = {
    "model_type": "detr",
    "backbone": None,
    "use_timm_backbone": False,
    "use_pretrained_backbone": False,
    "backbone_config": {"model_type": "resnet", "out_features": ["stage4"]} | BACKBONE,
    "num_queries": 6,
} | {"d_model": 16, **DECODER}
DAB_DETR = {
    "model_type": "dab-detr",
    "backbone": None,
    "use_timm_backbone": False,
    "use_pretrained_backbone": False,
    "backbone_config": {"model_type": "resnet", "out_features": ["stage4"]} | BACKBONE,
    "num_queries": 6,
} | {"hidden_size": 16, **DECODER}
RT_DETR = {
    "model_type": "rt_detr",
    "backbone": None,
    "use_pretrained_backbone": False,
    "backbone_config": {
        "model_type": "rt_detr_resnet",
        "out_features": ["stage2", "stage3", "stage4"],
    }
    | BACKBONE,
    "encoder_hidden_dim": 16,
    "encoder_in_channels": [8, 16, 16],
    "decoder_in_channels": [16, 16, 16],
    "num_queries": 6,
    "num_denoising": 4,
} | {"d_model": 16, **DECODER}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pytest.importorskip("torchvision")
    pytest.importorskip("pycocotools")
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def detection(model: str, options: dict[str, Any], **sections: Any) -> Recipe:
    data = {"name": "digit_objects", "scenes": 8, "held_out": 2, "size": 32, "batch_size": 4}
    whole: dict[str, Any] = {
        "task": {"name": "detection", "kind": "boxes"},
        "data": data,
        "teacher": {"model": model, "options": options},
        "student": {"model": model, "options": options},
        "objectives": {"own_loss": {}, "pkd": {}, "mgd": {}, "fgd": {}},
        "teacher_train": {"steps": 2, "optimizer": {"lr": 1e-3}},
        "train": {"steps": 2, "optimizer": {"lr": 1e-3}},
        "seeds": [0],
        "baselines": [],
        "export": False,
    }
    return build(whole | sections)


@pytest.mark.parametrize("name", ["FCOS", "RetinaNet", "FasterRCNN"])
def test_features_of_the_pyramid_are_distilled(folder: Path, name: str) -> None:
    options = SMALL if name == "FasterRCNN" else DENSE
    result = run_of(detection(f"torchvision:{name}", options), folder / "run")
    assert (result["status"], result["headline"]) == ("complete", "map")
    assert 0 <= result["distilled"]["map"]["mean"] <= result["distilled"]["map_50"]["mean"] <= 1
    assert result["teacher"]["map"]["mean"] >= 0


def test_distributions_of_edges_are_distilled(folder: Path) -> None:
    objectives: dict[str, Any] = {"own_loss": {}, "dense_localisation_distillation": {}}
    options = DENSE | {"regression": "distribution", "bins": 9}
    result = run_of(detection("torchvision:FCOS", options, objectives=objectives), folder / "run")
    assert result["status"] == "complete"
    assert 0 <= result["distilled"]["map"]["mean"] <= 1


def test_boxes_of_the_batch_are_the_foreground_of_fgd(folder: Path) -> None:
    values = []
    for size in (32, 64):
        options = DENSE | {"min_size": size, "max_size": size}
        recipe = detection("torchvision:RetinaNet", options, objectives={"own_loss": {}, "fgd": {}})
        (_, probe) = doctor(recipe)["stages"][0]["objectives"].values()
        values.append(probe["value"])
    assert all(value > 0 for value in values)


@pytest.mark.parametrize(
    ("name", "options", "roles"),
    [
        ("torchvision:retinanet_resnet50_fpn", {"min_size": 64, "max_size": 64}, "anchor_logits"),
        ("torchvision:fcos_resnet50_fpn", {"min_size": 64, "max_size": 64}, "anchor_logits"),
        ("torchvision:fasterrcnn_resnet50_fpn", {"min_size": 64, "max_size": 64}, ""),
        ("torchvision:ssdlite320_mobilenet_v3_large", {}, ""),
        ("torchvision:RetinaNet", {"backbone": "resnet18", "pyramid_channels": 32}, "dense_head"),
    ],
)
@pytest.mark.slow
def test_models_at_full_size(name: str, options: dict[str, Any], roles: str) -> None:
    pytest.importorskip("torchvision")
    model = factory.build(name, options, **FACTS)
    generator = torch.Generator().manual_seed(0)
    batch = {
        "image": torch.rand(2, 1, 64, 64, generator=generator),
        "label": torch.tensor([[1, 9], [3, -100]]),
        "box": torch.tensor([[[4.0, 4, 30, 30], [32, 32, 60, 60]], [[8.0, 8, 40, 40], [-100] * 4]]),
    }
    loss = call(model.train(), batch)["loss"]
    assert all(value.isfinite() for value in loss.values())
    with torch.no_grad():
        outputs = call(model.eval(), batch)
    assert not roles or roles in outputs
    assert 0 <= box_scores([(batch, outputs)])["map"] <= 1


def test_masks_of_the_batch_are_targets(folder: Path) -> None:
    options = SMALL | {"box_batch_size_per_image": 8}
    model = factory.build("torchvision:MaskRCNN", options, **FACTS).train()
    batch = {
        "image": torch.rand(1, 1, 32, 32),
        "label": torch.tensor([[2, -100]]),
        "box": torch.tensor([[[4.0, 4, 20, 20], [-100.0] * 4]]),
        "masks": torch.ones(1, 2, 32, 32, dtype=torch.uint8),
    }
    assert "loss_mask" in call(model, batch)["loss"]
    del batch["masks"]
    with pytest.raises(ValueError, match=r"the batch has no masks\. Expected masks \(N, K, H, W\)"):
        call(model, batch)


@pytest.mark.parametrize("config", [DETR, DAB_DETR, RT_DETR], ids=["detr", "dab_detr", "rt_detr"])
def test_detection_transformers_learn_from_matched_and_shared_queries(
    folder: Path, config: dict[str, Any]
) -> None:
    pytest.importorskip("transformers")
    recipe = detection(
        "transformers:AutoModelForObjectDetection",
        {"config": config},
        objectives={"own_loss": {}, "detr_distill": {}, "kd_detr": {"num_points": 4}},
    )
    result = run_of(recipe, folder / "run")
    assert (result["status"], result["kind"]) == ("complete", "boxes")
    assert 0 <= result["distilled"]["map"]["mean"] <= 1


def test_options_of_the_input_that_a_detector_does_not_read_are_errors(folder: Path) -> None:
    recipe = detection("torchvision:RetinaNet", DENSE)
    recipe.student.input = InputConfig(mean=[0.5] * 3, std=[0.5] * 3)
    with pytest.raises(RecipeError, match=r"this detector normalises images itself.*image_mean"):
        doctor(recipe)
    model = factory.build("torchvision:RetinaNet", DENSE, **FACTS)
    with pytest.raises(ValueError, match=r"input\.size: .*, to 32 pixels.* max_size to 16"):
        call(model, {"image": torch.rand(1, 3, 32, 32)}, size=16)


def test_distil_trains_detectors_of_any_number_of_objects() -> None:
    pytest.importorskip("torchvision")
    batch = {
        "image": torch.rand(2, 3, 32, 32),
        "label": torch.tensor([[1, -100], [0, 2]]),
        "box": torch.tensor([[[2.0, 2, 20, 20], [-100.0] * 4], [[4.0, 4, 9, 30], [1, 1, 30, 9]]]),
    }
    teacher, student = (factory.build("torchvision:FCOS", SMALL, **FACTS) for _ in range(2))
    objectives = {"own_loss": 1.0, "pkd": 1.0}
    options: dict[str, Any] = {"epochs": 1, "progress": False}
    task = Detection("boxes")
    result = distil(teacher, student, [batch], objectives, task=task, **options)
    assert len(result.records) == 1
    pictures = tuple(batch["image"]), [{"boxes": batch["box"][0], "labels": batch["label"][0]}] * 2
    names = ("image", "targets")
    with pytest.raises(ValueError, match=r"image: a tuple of 2 images. Expected a tensor"):
        distil(teacher, student, [pictures], objectives, task=task, names=names, **options)
    with pytest.raises(ValueError, match=r'Use the task Detection\("boxes"\)'):
        distil(teacher, student, [batch], objectives, task="detection", **options)


def test_yolos_has_a_query_for_each_detection_token() -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.YolosConfig(
        **sizes, intermediate_size=8, image_size=[32, 32], num_detection_tokens=5, num_labels=3
    )
    model = transformers.YolosForObjectDetection(config).eval()
    outputs = call(model, {"image": torch.rand(2, 3, 32, 32)})
    assert outputs["query_logits"].shape == (2, 5, 4)
    assert outputs["detections"][0]["boxes"].shape == (15, 4)


def test_evaluated_images_without_any_box_are_an_error_before_training(folder: Path) -> None:
    label = np.full((12, 1), -100)
    image, box = np.zeros((12, 3, 32, 32), np.uint8), np.full((12, 1, 4), -100.0)
    np.savez("empty.npz", image=image, label=label, box=box, classes=np.array(["a", "b"]))
    recipe = detection("torchvision:RetinaNet", DENSE, data={"name": "npz:empty.npz"})
    with pytest.raises(RecipeError, match=r"data: none of the . samples of the validation data"):
        Experiment.from_recipe(recipe)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("RetinaNet", {"widht": 4}, "options.widht: .* Did you mean width"),
        ("RetinaNet", {"strides": [8, 32]}, r"strides: .*Expected powers of 2 that double"),
        ("RetinaNet", {"pyramid_channels": 12}, "pyramid_channels: .*a multiple of 8, got 12"),
        ("FCOS", {"pyramid_channels": 16}, "pyramid_channels: .*a multiple of 32, got 16"),
        ("FCOS", {"aspect_ratios": [1.0, 2.0]}, "FCOS has one anchor per position"),
        ("RetinaNet", {"anchor_sizes": [[8]]}, r"each of the 3 levels with the strides \[8, 16"),
        ("RetinaNet", {"regression": "distribution"}, "regression: only FCOS predicts distances"),
        ("FCOS", {"regression": "distribtion"}, "regression: unknown name.* Did you mean distrib"),
        ("FCOS", {"regression": "distribution", "bins": 1}, "bins: too few. Expected 2 or more"),
        ("FCOS", {"bins": 9}, "bins: only regression: distribution has bins"),
        ("FasterRCNN", {"backbone": "resnet19"}, "unknown name 'resnet19'.* Did you mean resnet"),
        ("FasterRCNN", {"width": 0}, "width: wrong number. Expected at least 1, got 0"),
        ("FasterRCNN", {"backbone": "resnet18", "width": 8}, "width: only the backbone cnn"),
        ("FasterRCNN", {"backbone": "resnet18", "strides": [2, 4]}, "a ResNet has the strides 4"),
        ("RetinaNett", {}, "no classification model 'RetinaNett'.* Did you mean RetinaNet"),
    ],
)
def test_wrong_options(name: str, options: dict[str, Any], message: str) -> None:
    pytest.importorskip("torchvision")
    with pytest.raises(ValueError, match=message):
        factory.build(f"torchvision:{name}", options, **FACTS)


def test_classes_of_a_detector_in_another_order_are_an_error(folder: Path) -> None:
    recipe = detection("torchvision:RetinaNet", DENSE, objectives={"own_loss": {}, "crosskd": {}})
    teacher = recipe.teachers[0]
    teacher.classes = [str(index) for index in (1, 0, *range(2, 10))]
    with pytest.raises(RecipeError, match=r"teacher: .* in another order: class 0 is '1' for"):
        doctor(recipe)


def test_other_heads_are_an_error_before_training(folder: Path) -> None:
    recipe = detection("torchvision:RetinaNet", DENSE, objectives={"own_loss": {}, "crosskd": {}})
    recipe.student.options = {**recipe.student.options, "pyramid_channels": 64}
    with pytest.raises(RecipeError, match="crosskd: the heads differ in channels"):
        doctor(recipe)
    pretrained = detection("torchvision:FCOS", DENSE)
    pretrained.student.pretrained = True
    with pytest.raises(RecipeError, match="FCOS is a class without weights"):
        doctor(pretrained)
