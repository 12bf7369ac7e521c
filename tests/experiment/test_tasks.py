"""A complete run of every task: arms, result, exported student, ONNX export, report."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

import instil
from instil import recipe as recipes
from instil.cli import summary_table
from instil.deployment.export import export
from instil.experiment.cached_teacher import CachedTeacher
from instil.experiment.experiment import Experiment
from instil.experiment.networks import build_network
from instil.experiment.schemes import samples_for_objectives
from instil.experiment.teachers import as_teacher
from instil.plan.doctor import doctor
from instil.plan.evaluation import Evaluator
from instil.recipe import label_objectives
from instil.recipe.errors import RecipeError
from tests.experiment.small import lines, recipe, result, run_of

TEXT = {"model": "text_transformer", "options": {"width": 4, "depth": 1}}
TOWERS = {"model": "two_towers", "options": {"width": 2, "text_width": 4}}
SECTIONS: dict[str, dict[str, Any]] = {
    "segmentation": {
        "data": {
            "name": "digit_scenes",
            "scenes": 24,
            "size": 8,
            "num_labeled": 8,
            "batch_size": 8,
        },
        "teacher": {"model": "segmenter", "options": {"width": 4}},
        "student": {"model": "segmenter", "options": {"width": 2}},
    },
    "text_classification": {
        "data": {"name": "digit_tokens", "num_labeled": 100, "batch_size": 250},
        "teacher": TEXT,
        "student": TEXT,
    },
    "node_classification": {
        "data": {"name": "digit_graph", "num_labeled": 100, "batch_size": 250},
        "teacher": {"model": "gcn", "options": {"width": 4}},
        "student": {"model": "mlp", "options": {"width": 4}},
    },
    "image_text": {
        "data": {"name": "digit_captions", "batch_size": 250},
        "teacher": TOWERS,
        "student": TOWERS,
        "objectives": {"contrastive": {}, "clip_feature": {"weight": 10}},
    },
    "regression": {
        "data": {"name": "digit_poses", "num_labeled": 100, "batch_size": 250},
        "teacher": {"model": "cnn", "options": {"width": 4}},
        "objectives": {"mean_squared_error": {}, "logit_mse": {}},
    },
    "detection": {
        "data": {"name": "digit_boxes", "num_labeled": 100, "batch_size": 250},
        "teacher": {"model": "detector", "options": {"width": 4}},
        "student": {"model": "detector", "options": {"width": 2}},
        "objectives": {
            "cross_entropy": {},
            "distribution_focal": {},
            "localisation_distillation": {"weight": 0.25},
        },
    },
}
CLASSES = ("alone", "label_smoothing", "pseudo_labels")
EXPECTED = {
    "segmentation": (("alone", "pseudo_labels"), True, "miou"),
    "text_classification": (CLASSES, True, "accuracy"),
    "node_classification": (CLASSES, False, "accuracy"),
    "image_text": (("alone",), False, "accuracy"),
    "regression": (("alone",), True, "r2"),
    "detection": (("alone",), True, "iou"),
}


def small(task: str, *changes: str) -> recipes.Recipe:
    """Return a recipe of two epochs on little data, with the defaults of the task."""
    sections = {"task": task, "export": None, **SECTIONS[task]}
    return recipe(*changes, **sections)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("tasks")
    for task in SECTIONS:
        run_of(small(task), base / task)
    return {task: base / task for task in SECTIONS}


@pytest.mark.parametrize("task", SECTIONS)
def test_every_arm_is_trained_and_judged(task: str, runs: dict[str, Path]) -> None:
    baselines, exports, headline = EXPECTED[task]
    outcome = result(runs[task])
    assert outcome["status"] == "complete"
    assert [name for name in ("teacher", *CLASSES, "distilled") if name in outcome] == [
        "teacher",
        *baselines,
        "distilled",
    ]
    assert outcome["headline"] == headline
    for arm in ("teacher", *baselines, "distilled"):
        for metric in {headline, "accuracy"} if headline != "r2" else ():
            assert 0 <= outcome[arm][metric]["mean"] <= 1
        assert ("agreement" in outcome[arm]) == (arm != "teacher")
    assert len(outcome["gain"]["interval"]) == 2
    losses = [value for line in lines(runs[task]) for value in line["losses"].values()]
    assert losses
    assert all(math.isfinite(value) for value in losses)
    assert outcome["cost"]["student"]["latency"]["batch_size"] == 1
    assert ("onnx" in outcome.get("export", {})) == exports
    assert not [warning for warning in outcome["warnings"] if "ONNX" in warning]


@pytest.mark.parametrize("task", SECTIONS)
def test_the_page_and_the_table_are_of_the_headline(task: str, runs: dict[str, Path]) -> None:
    page = (runs[task] / "report.html").read_text()
    words = {"miou": "mIoU", "r2": "R²", "iou": "mean IoU"}.get(EXPECTED[task][2], "accuracy")
    assert f"Validation {words} against epoch" in page
    assert ("cannot be exported to ONNX" in page) == (not EXPECTED[task][1])
    assert ("was not exported" in page) is False
    console = Console(record=True, width=120, file=io.StringIO())
    summary_table.show(result(runs[task]), console)
    text = console.export_text()
    assert EXPECTED[task][2] in text
    assert {"node_classification": "nodes"}.get(task, "samples") in text


@pytest.mark.parametrize("task", [task for task, (_, exports, _) in EXPECTED.items() if exports])
def test_the_exported_file_scores_as_the_student_does(task: str, runs: dict[str, Path]) -> None:
    outcome = result(runs[task])
    headline, seed = outcome["headline"], outcome["seeds"].index(outcome["exported_seed"])
    assert outcome["export"]["onnx"]["max_difference"] < 1e-3
    assert outcome["export"]["onnx"][headline] == pytest.approx(
        outcome["distilled"][headline]["values"][seed], abs=0.01
    )


def test_int8_of_texts_and_pixels(runs: dict[str, Path]) -> None:
    for task in ("segmentation", "text_classification"):
        export(runs[task], int8=True)
        assert result(runs[task])["export"]["int8"][EXPECTED[task][2]] >= 0


@pytest.mark.parametrize(
    ("task", "what"),
    [
        ("node_classification", "x, edge_index to logits"),
        ("image_text", "image, input_ids to image_embedding, text_embedding"),
    ],
)
def test_students_without_export_are_refused_before_and_after_training(
    task: str, what: str, runs: dict[str, Path]
) -> None:
    message = f"cannot be exported to ONNX: it is not a graph from {what}"
    with pytest.raises(RecipeError, match=f"^export: a student of .* {message}"):
        Experiment.from_recipe(small(task, "export=true"))
    with pytest.raises(ValueError, match=message):
        export(runs[task], int8=False)


def test_the_exported_student_predicts(runs: dict[str, Path]) -> None:
    scenes = Experiment.from_recipe(small("segmentation")).splits.test.__getitems__(range(3))
    student = instil.load(runs["segmentation"])
    assert student(scenes["image"]).shape == (3, 8, 8, 11)
    assert [one.shape for one in student.predict(torch.rand(2, 1, 12, 9))] == [(12, 9)] * 2
    texts = Experiment.from_recipe(small("text_classification")).splits.test.__getitems__(range(3))
    student = instil.load(runs["text_classification"])
    torch.testing.assert_close(student(texts).sum(1), torch.ones(3))
    assert set(student.predict(texts["input_ids"][:, :9])) <= set(student.classes)
    nodes = Experiment.from_recipe(small("node_classification")).splits.test.__getitems__(range(3))
    assert len(instil.load(runs["node_classification"]).predict(nodes)) == len(nodes["x"])
    scenes = Experiment.from_recipe(small("detection")).splits.test.__getitems__(range(3))
    student = instil.load(runs["detection"])
    assert set(student.predict(scenes["image"])) <= set(student.classes)
    assert student.net(scenes)["box_logits"].shape == (3, 4 * 17)
    poses = Experiment.from_recipe(small("regression")).splits.test.__getitems__(range(3))
    student = instil.load(runs["regression"])
    assert [list(one.values()) for one in student.predict(poses["image"])] == student(
        poses
    ).tolist()
    assert set(student.predict(poses)[0]) == {"angle", "right", "down"}


def test_the_error_for_a_student_without_classes_lists_its_outputs(runs: dict[str, Path]) -> None:
    student = instil.load(runs["image_text"])
    batch = Experiment.from_recipe(small("image_text")).splits.test.__getitems__(range(3))
    with pytest.raises(
        ValueError,
        match=r"are image_embedding and text_embedding, not classes\. .* student\.net\(batch\)",
    ):
        student(batch)
    assert student.net(batch)["text_embedding"].shape == (3, 32)


@pytest.mark.parametrize("task", SECTIONS)
def test_the_doctor_finds_nothing_wrong(task: str) -> None:
    report = doctor(small(task))
    objections = [
        problem
        for problem in report["problems"]
        if "of the gradient" not in problem and "right less often" not in problem
    ]
    assert objections == [], "but that a net of two epochs is a poor teacher"
    match = report["stages"][0]["match"]
    assert ("student_accuracy" in match) == (task not in ("image_text", "regression"))


def test_precomputed_node_outputs_equal_those_of_the_teacher() -> None:
    experiment = Experiment.from_recipe(small("node_classification"))
    teacher = as_teacher([build_network(experiment.recipe.teachers[0], experiment, "teacher")])
    assert teacher is not None
    text = CachedTeacher(
        teacher,
        experiment.task.roles,
        experiment.loader(experiment.splits.validation, shuffle=False),
    )
    batch = experiment.splits.validation.__getitems__([290, 3])
    torch.testing.assert_close(
        text(batch)["logits"][batch["valid"]], teacher(batch)["logits"][batch["valid"]]
    )


def test_pixel_labels_of_the_teacher_need_one_byte_per_pixel() -> None:
    experiment = Experiment.from_recipe(small("segmentation"))
    teacher = as_teacher([build_network(experiment.recipe.teachers[0], experiment, "teacher")])
    assert teacher is not None
    samples = experiment.splits.train
    cached = Evaluator(experiment).cache_decisions(teacher, samples)
    assert sum(table.nbytes for table in cached.buffers()) == samples.label.numel()
    batch = samples.__getitems__([5, 2])
    expected = teacher(batch)["logits"].argmax(-1)
    assert torch.equal(cached(batch)["prediction"].long(), expected)


def test_alone_sees_all_pairs_where_no_label_is_needed() -> None:
    experiment = Experiment.from_recipe(small("image_text", "data.num_labeled=50"))
    samples = experiment.train_data(0)
    assert (
        len(samples_for_objectives(label_objectives(experiment.recipe, "contrastive"), samples))
        == 1000
    )
    assert (
        len(samples_for_objectives(label_objectives(experiment.recipe, "cross_entropy"), samples))
        == 50
    )


@pytest.mark.parametrize(
    ("task", "changes", "message"),
    [
        (
            "segmentation",
            ["data={name: digits}"],
            r"task: segmentation needs a label and valid \(N, H, W\) for each pixel; the "
            r"label has the shape \(1,\)",
        ),
        (
            "text_classification",
            ["data={name: digits}"],
            "task: text classification needs 'input_ids' in a batch. Expected input_ids, "
            "attention_mask, got image, label",
        ),
        (
            "segmentation",
            ["task=classification"],
            r"task: classification needs one label a sample\. Expected whole numbers \(N,\), .*"
            r"got torch.int64 \(1, 8, 8\)",
        ),
        (
            "segmentation",
            ["baselines=[alone,label_smoothing]"],
            "baselines: label_smoothing is undefined for segmentation with 'single' labels. "
            "Expected one of alone, pseudo_labels",
        ),
        (
            "segmentation",
            ["task={name: segmentation, kind: multi}"],
            "labels are single, not 'multi'",
        ),
    ],
)
def test_data_and_task_must_fit(task: str, changes: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Experiment.from_recipe(small(task, *changes))


@pytest.mark.parametrize(
    ("task", "change", "message"),
    [
        (
            "text_classification",
            "student={model: cnn}",
            "student: cnn needs the option.*|student: CNN fails on input_ids of 32",
        ),
        (
            "text_classification",
            "student={model: 'timm:resnet18'}",
            "student: timm:resnet18 reads images, and these data have only",
        ),
        (
            "text_classification",
            "student.input={mean: [0.5]}",
            r"(student|teacher)\.input\.mean: a model of text_classification gets its input as",
        ),
        (
            "segmentation",
            "data.augment={crop: 1}",
            r"data\.augment: crop, flip, mixup and partner need images with one label per image",
        ),
    ],
)
def test_inputs_that_do_not_fit_are_refused_before_training(
    task: str, change: str, message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        doctor(small(task, change))
