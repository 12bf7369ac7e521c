"""Students without training images: none is opened, and the report names the surrogate images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from instil import catalogue
from instil.capabilities import SynthesizesImages
from instil.core import Batch
from instil.data.samples import Samples
from instil.data.sources.digits import digits
from instil.data.splits import Splits
from instil.experiment import stage_data
from instil.experiment.experiment import Experiment
from instil.networks.cnn import cnn
from instil.plan.doctor import doctor
from instil.recipe.errors import RecipeError
from tests.experiment.small import recipe, run_of
from tests.plan.test_pictures import read

GENERATOR = {"model": "generator", "options": {"latent": 8, "width": 4}}
FEW = {"memory": 64, "iterations": 2}
SCHEMES: dict[str, dict[str, Any]] = {
    "zskt": {"generator": GENERATOR, "student_steps": 2},
    "dafl": {"generator": GENERATOR, "statistics": 1},
    "dfad": {"generator": GENERATOR, "student_steps": 2},
    "dfq": {"generator": GENERATOR, "memory": 64},
    "cmi": {"generator": GENERATOR, "width": 8, "negatives": 16, **FEW},
    "fast_data_free": {"generator": GENERATOR, **FEW},
    "deep_inversion": FEW,
}
"""Every scheme that makes its own images, with options for a short run."""


def without_data(*changes: str, surrogate: Any = "scheme", **sections: Any) -> Any:
    options = {
        "data": {"name": "digits", "surrogate": surrogate, "batch_size": 50},
        "objectives": {"kd": {"temperature": 2}},
    }
    return recipe("seeds=[0]", "train.epochs=1", *changes, **options | sections)


class Closed(Samples):
    """Training samples that allow nothing except their length."""

    def __init__(self, count: int, classes: list[str]):
        super().__init__(torch.zeros(count, dtype=torch.int64), classes)

    def inputs(self, rows: Tensor) -> Batch:
        raise AssertionError("a training image was opened")

    @property
    def label(self) -> Tensor:
        raise AssertionError("a training label was read")

    @label.setter
    def label(self, value: Tensor) -> None:
        self.count = len(value)

    def __len__(self) -> int:
        return self.count

    def _take(self, rows: Tensor) -> None:
        raise AssertionError("training images were chosen")


def test_every_scheme_that_makes_images_is_tried_here() -> None:
    assert {
        name
        for name in catalogue.names("scheme")
        if issubclass(catalogue.find("scheme", name), SynthesizesImages)
    } == set(SCHEMES)


@pytest.fixture
def closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return the section of a trained teacher, with training samples that cannot be opened."""
    save_file(cnn(10, width=2).state_dict(), tmp_path / "teacher.safetensors")
    whole = digits()
    shut = Splits(
        Closed(len(whole.train), list(whole.classes)),
        whole.validation,
        whole.test,
        whole.classes,
        whole.kind,
    )
    monkeypatch.setattr(stage_data, "data_source", lambda *_, **__: shut)
    return {
        "model": "cnn",
        "options": {"width": 2},
        "weights": str(tmp_path / "teacher.safetensors"),
    }


@pytest.mark.parametrize("name", [*SCHEMES, "noise", "blobs"])
def test_no_training_image_or_label_is_opened(
    name: str, tmp_path: Path, closed: dict[str, Any]
) -> None:
    data_options = (
        {"scheme": {"type": name, **SCHEMES[name]}, "baselines": ["noise"]}
        if name in SCHEMES
        else {"surrogate": name}
    )
    outcome = run_of(without_data(teacher=closed, **data_options), tmp_path / "run")
    assert outcome["status"] == "complete"
    assert set(outcome["gains"]) == ({"blobs"} if name == "noise" else {"noise"})
    assert outcome["data"]["labelled"] == 0
    assert "alone" not in outcome
    page = (tmp_path / "run" / "report.html").read_text()
    pixels = read((tmp_path / "run" / "checkpoint" / "distilled-0.png").read_bytes())
    assert pixels.shape == (104, 416, 1)
    assert len(pixels.unique()) > 50
    assert "Images that the student was trained on" in page
    assert "<img src=" in page
    assert "It saw none of the training images" in page


def test_the_test_above_would_fail_for_a_student_that_sees_them(
    tmp_path: Path, closed: dict[str, Any]
) -> None:
    with pytest.raises(AssertionError, match=r"was opened|was read"):
        run_of(recipe("seeds=[0]", "baselines=[]", teacher=closed), tmp_path / "with")


def test_a_run_on_training_images_shows_none(tmp_path: Path) -> None:
    run_of(recipe("seeds=[0]", "baselines=[]", "train.epochs=1"), tmp_path / "with")
    assert (
        "Images that the student was trained on"
        not in (tmp_path / "with" / "report.html").read_text()
    )
    assert not list((tmp_path / "with").rglob("distilled-*.png"))


def test_images_of_another_source_are_borrowed_without_their_labels(tmp_path: Path) -> None:
    one = without_data(surrogate={"name": "digit_domains", "look": "inverted"})
    experiment = Experiment.from_recipe(one)
    assert torch.equal(
        experiment.samples.__getitems__([0])["image"], 1 - digits().train.__getitems__([0])["image"]
    )
    outcome = run_of(one, tmp_path / "run")
    assert set(outcome["gains"]) == {"noise", "blobs"}
    assert outcome["data"]["surrogate"] == "digit_domains"
    assert "on images of digit_domains" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.parametrize("name", SCHEMES)
def test_doctor_understands_them(name: str) -> None:
    (stage,) = doctor(without_data(scheme={"type": name, **SCHEMES[name]}))["stages"]
    learners = {entry["learner"] for entry in stage["objectives"].values()}
    assert learners == ({"student"} if name == "deep_inversion" else {"student", "generator"})
    assert all(
        entry["count"] == 50 or entry["learner"] == "generator"
        for entry in stage["objectives"].values()
    )
    assert not any("reach" in problem or "constant" in problem for problem in stage["problems"])


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a scheme that makes none": ({}, r"data\.surrogate: the scheme offline makes no images"),
    "other images in addition to synthetic ones": (
        {"surrogate": "noise", "scheme": {"type": "deep_inversion"}},
        r"data\.surrogate: .* must be scheme",
    ),
    "training images": (
        {"surrogate": None, "scheme": {"type": "deep_inversion"}, "baselines": []},
        r"data\.surrogate: .* must be scheme",
    ),
    "no such images": (
        {"surrogate": "blob"},
        r"data\.surrogate: .* unknown data source 'blob'.*noise, blobs, scheme",
    ),
    "no such option": ({"surrogate": {"name": "blobs", "cell": 4}}, r"data\.surrogate\.cell"),
    "labels": (
        {"surrogate": "noise", "data": {"name": "digits", "surrogate": "noise", "num_labeled": 10}},
        "Leave data.num_labeled out",
    ),
    "a student on labels": (
        {"surrogate": "noise", "baselines": ["alone"]},
        "alone is undefined for a student that sees no data",
    ),
    "objectives of labels": (
        {"surrogate": "noise", "objectives": {"cross_entropy": {}}},
        r"objectives\.cross_entropy: .*data\.surrogate: such images have none",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_inputs_that_do_not_fit_are_refused_before_training(what: str, tmp_path: Path) -> None:
    sections, message = REFUSED[what]
    with pytest.raises((RecipeError, ValueError), match=message):
        run_of(without_data(**sections), tmp_path / "run")
