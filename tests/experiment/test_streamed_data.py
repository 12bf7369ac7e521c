"""Recipes whose training data are a stream, from a source in a module of ``imports``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from instil.plan import fitting
from instil.plan.doctor import doctor
from instil.recipe import RecipeError, build
from instil.recipe.overrides import override
from instil.recipe.sections import Recipe
from instil.training.train_state import TrainState
from tests.experiment.small import lines, numbers, run_of

FLOW: dict[str, Any] = {
    "imports": ["tests.experiment.flow"],
    "task": "classification",
    "data": {"name": "bright_or_dark", "batch_size": 25, "augment": {"crop": 1, "flip": True}},
    "teacher": {"model": "cnn", "options": {"width": 4}},
    "student": {"model": "cnn", "options": {"width": 2}},
    "objectives": {"cross_entropy": {}, "kd": {}},
    "baselines": ["alone", "label_smoothing"],
    # A pass has 12 steps: the training has a whole pass and a part of one.
    "train": {"steps": 20, "checkpoint_steps": 8, "evaluate_steps": 9, "optimizer": {"lr": 0.01}},
    "seeds": [0],
    "export": False,
}
ARMS = ("teacher", "alone", "label_smoothing", "distilled")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))


def recipe(*changes: str) -> Recipe:
    return build(override(FLOW, changes))


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "student.safetensors")


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_a_streamed_recipe_trains_every_arm_with_and_without_workers(tmp_path: Path) -> None:
    content = run_of(recipe(), tmp_path / "run")
    assert content["status"] == "complete"
    assert (content["data"]["train"], content["data"]["streamed"]) == (None, True)
    assert content["labels"]["student"] is None
    assert "a stream to train" in (tmp_path / "run" / "report.html").read_text()
    steps = [line["step"] for line in lines(tmp_path / "run") if line["arm"] == "distilled"]
    assert steps == [9, 12, 18, 20]
    read_ahead = run_of(recipe("data.workers=2"), tmp_path / "workers")
    assert numbers(read_ahead, ARMS) == numbers(content, ARMS)
    assert_same(weights(tmp_path / "run"), weights(tmp_path / "workers"))


class Stop(Exception):
    """Interruption of a training."""


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_training_continues_at_the_same_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    recipe_of_run = recipe(f"data.workers={workers}", "baselines=[]")
    expected = run_of(recipe_of_run, tmp_path / "whole")
    plain_fit = fitting.fit

    def interrupted(*arguments: Any, on_step: Any, **options: Any) -> Any:
        def stop(state: TrainState) -> None:
            on_step(state)
            if state.step == 18:
                raise Stop

        return plain_fit(*arguments, on_step=stop, **options)

    out = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        patch.setattr(fitting, "fit", interrupted)
        with pytest.raises(Stop):
            run_of(recipe_of_run, out)
    # The last checkpoint is that of step 16, within the second pass over the stream.
    resumed = run_of(recipe_of_run, out, resume=True)
    assert numbers(resumed, ARMS) == numbers(expected, ARMS)
    assert_same(weights(out), weights(tmp_path / "whole"))


def test_a_model_computes_its_loss_from_the_labels_of_a_stream() -> None:
    pytest.importorskip("transformers")
    config = {"model_type": "vit", "image_size": 8, "patch_size": 4, "num_channels": 1}
    config |= {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    student = {
        "model": "transformers:AutoModelForImageClassification",
        "options": {"config": config},
    }
    sections = {"student": student, "objectives": {"own_loss": {}}, "baselines": []}
    (probe,) = doctor(build(FLOW | sections))["stages"][0]["objectives"].values()
    assert probe["value"] > 0


def test_the_default_baselines_of_a_stream_read_no_teacher_outputs() -> None:
    sections = {name: value for name, value in FLOW.items() if name not in ("baselines", "data")}
    for data in ({"name": "webdataset"}, {"name": "huggingface:photos", "streaming": True}):
        assert build(sections | {"data": data}).baselines == ["alone", "label_smoothing"]
    photos = build(sections | {"data": {"name": "huggingface:photos"}})
    assert "pseudo_labels" in photos.baselines


def test_doctor_examines_a_stream() -> None:
    findings = doctor(recipe())
    assert findings["data"]["train"] == {"samples": None, "labelled": None}
    assert findings["data"]["validation"] == {"samples": 40, "labelled": 40}
    assert findings["problems"] == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["train.steps=null", "train.epochs=2"], "train.epochs: .* Set train.steps"),
        (["teacher_train={epochs: 2}"], "teacher_train.epochs: .* Set teacher_train.steps"),
        (["data.num_labeled=10"], "data.num_labeled: the labelled samples are chosen"),
        (["store={path: s}"], "store: it has the outputs of every training sample"),
        (["teacher.precompute=true"], "teacher.precompute: it computes the outputs"),
        (["data.validation=0.2"], "data.validation: a share of 0.2 needs .* validation: 1000"),
        (["data.test=0.2"], "data.test: a share of 0.2 needs"),
        (
            ["objectives.cross_entropy.class_weights=balanced"],
            "objectives.cross_entropy.class_weights: balanced counts .* Set a list of weights",
        ),
        (
            ["baselines=[alone, pseudo_labels]"],
            r"baselines: pseudo_labels reads the teacher's outputs .* Set baselines: \[alone\]",
        ),
        (["data.sampler=two_views"], "data.sampler: two_views chooses"),
        (["data.augment.mixup=true"], "data.augment.mixup: the second image is chosen"),
        (["teacher.data={num_labeled: 5}"], "teacher.data.num_labeled: the labelled samples"),
        (["scheme=filter_kd"], "scheme: filter_kd has a table of all training samples"),
        (["data.surrogate={name: noise}"], "data.surrogate: the number of these images"),
        (["teacher={model: 'sklearn:RandomForestClassifier'}"], "teacher.model: .* is fitted"),
        (["ensemble={type: private_votes}"], "ensemble: private_votes reads all training samples"),
    ],
)
def test_what_needs_a_length_is_an_error_before_training(
    changes: list[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=f"^{message}") as caught:
        run_of(recipe(*changes), tmp_path / "run")
    assert "stream" in str(caught.value)
    assert not (tmp_path / "run").exists()
