"""Predictions of the exported student: equal to those of the trained network, by class name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import instil
import instil.recipe
from instil.core import Net
from instil.data.sources.digits import digits
from instil.deployment.export import export
from instil.deployment.predict import Student
from instil.experiment.experiment import Experiment
from instil.experiment.networks import build_network
from instil.export.student import load_student
from instil.networks.causal_transformer import causal_transformer
from instil.tasks import depth
from instil.tasks.language import call as language_call
from tests.experiment.small import recipe, result, run_of

CNN = {"model": "cnn", "options": {"width": 3}, "input": {"size": 8, "mean": [0.3], "std": [0.4]}}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("predict") / "run"
    run_of(recipe("baselines=[]", student=CNN), out)
    return out


def test_probabilities_equal_those_of_the_exported_arm(run: Path) -> None:
    experiment = Experiment.from_recipe(recipe(student=CNN))
    net = build_network(experiment.recipe.student, experiment, "student")
    load_student(net, run / "checkpoint" / f"distilled-{result(run)['exported_seed']}.safetensors")
    image = digits().test.image[:7]
    with torch.no_grad():
        expected = net.eval()({"image": image})["logits"].softmax(-1)
    student = instil.load(run)
    torch.testing.assert_close(student(image), expected, rtol=0, atol=0)
    assert student.predict(image) == [str(index) for index in expected.argmax(-1).tolist()]
    assert not student(image).requires_grad


def test_its_accuracy_equals_the_one_in_the_result(run: Path) -> None:
    content, student, test = result(run), instil.load(str(run)), digits().test
    is_right = student(test.image).argmax(-1) == test.label
    seed_index = content["seeds"].index(content["exported_seed"])
    assert is_right.double().mean().item() == pytest.approx(
        content["distilled"]["accuracy"]["values"][seed_index]
    )


def test_uint8_double_and_half_give_the_same_probabilities(run: Path) -> None:
    student = instil.load(run)
    whole = torch.randint(0, 256, (4, 1, 8, 8), dtype=torch.uint8)
    torch.testing.assert_close(student(whole), student(whole / 255))
    torch.testing.assert_close(student(whole), student((whole / 255).double()))
    torch.testing.assert_close(student(whole), student((whole / 255).half()), atol=1e-2, rtol=0)
    assert student(whole[:1]).shape == (1, 10)
    assert student(whole[:0]).shape == (0, 10)


def test_images_of_another_size_are_resized_to_the_training_size(run: Path) -> None:
    student = instil.load(run)
    image = torch.rand(2, 1, 20, 12)
    small = torch.nn.functional.interpolate(image, (8, 8), mode="bilinear", antialias=True)
    torch.testing.assert_close(student(image), student(small.clamp(0, 1)))


def test_images_of_another_size_that_nothing_resizes_are_a_warning(tmp_path: Path) -> None:
    run_of(
        recipe("baselines=[]", student={"model": "cnn", "options": {"width": 3}}), tmp_path / "a"
    )
    student = instil.load(tmp_path / "a")
    with pytest.warns(UserWarning, match=r"images of 20 x 12 pixels, .* trained on 8 x 8\."):
        student(torch.rand(2, 1, 20, 12))
    assert student(torch.rand(2, 1, 8, 8)).shape == (2, 10)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.rand(8, 8), r"images must have the shape \(N, 1, H, W\), not \(8, 8\)"),
        (torch.rand(1, 8, 8), r"images must have the shape \(N, 1, H, W\), not \(1, 8, 8\)"),
        (torch.rand(2, 3, 8, 8), r"images must have the shape \(N, 1, H, W\), not \(2, 3, 8, 8\)"),
        (
            torch.rand(2, 1, 8, 8) * 255,
            r"images must be uint8, or floating point in \[0, 1\], not float32",
        ),
        (
            torch.full((2, 1, 8, 8), float("nan")),
            r"images must be uint8, or floating point in \[0, 1\], not float32",
        ),
        (
            torch.ones(2, 1, 8, 8, dtype=torch.int64),
            r"images must be uint8, or floating point in \[0, 1\], not int64",
        ),
    ],
)
def test_other_images_are_refused(images: torch.Tensor, message: str, run: Path) -> None:
    with pytest.raises(ValueError, match=message):
        instil.load(run)(images)


def test_arrays_files_and_pil_images(run: Path, tmp_path: Path) -> None:
    from PIL import Image

    student = instil.load(run)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8), dtype=np.uint8)
    expected = student(torch.from_numpy(pixels)[:, None])
    paths = [tmp_path / f"{row}.png" for row in range(3)]
    pictures = [Image.fromarray(image) for image in pixels]
    for picture, path in zip(pictures, paths, strict=True):
        picture.save(path)
    for inputs in (
        pixels[:, None],
        pixels[..., None],
        pixels,
        paths,
        [str(path) for path in paths],
        pictures,
        list(pixels),
    ):
        assert torch.equal(student(inputs), expected)
    for one in (str(paths[1]), paths[1], pictures[1], pixels[1], pixels[1][..., None]):
        torch.testing.assert_close(student(one), expected[1:2])
        assert student.predict(one) == student.predict(torch.from_numpy(pixels[1])[None, None])


def test_files_of_another_size_are_resized_as_in_a_folder_data_set(
    run: Path, tmp_path: Path
) -> None:
    from PIL import Image

    large = np.random.default_rng(0).integers(0, 256, (20, 12, 3), dtype=np.uint8)
    path = tmp_path / "large.png"
    Image.fromarray(large).save(path)
    small = Image.fromarray(large).convert("L").resize((8, 8), Image.Resampling.BILINEAR)
    student = instil.load(run)
    torch.testing.assert_close(student(path), student(np.array(small)))


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        (np.zeros((2, 3, 8, 8), np.uint8), ValueError, r"wrong shape\. Expected \(N, 1, H, W\)"),
        ("no/such.png", FileNotFoundError, r"file no/such\.png not found"),
        (3, ValueError, r"inputs: unknown type\. Expected a tensor or array .* got int"),
        ([], ValueError, r"inputs: unknown type"),
        (
            [np.zeros((8, 8), np.uint8), np.zeros((9, 8), np.uint8)],
            ValueError,
            r"images of several sizes\. Expected one size, got \[\(1, 8, 8\), \(1, 9, 8\)\]",
        ),
    ],
)
def test_inputs_of_another_type_are_refused(
    inputs: Any, error: type[Exception], message: str, run: Path
) -> None:
    with pytest.raises(error, match=message):
        instil.load(run).predict(inputs)


def test_a_file_that_is_not_an_image(run: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("text")
    with pytest.raises(ValueError, match=r"a\.png"):
        instil.load(run).predict(tmp_path / "a.png")


def test_prediction_changes_no_weights(run: Path) -> None:
    student = instil.load(run)
    assert not any(part.training for part in student.net.modules())
    before = {name: value.clone() for name, value in student.net.state_dict().items()}
    image = torch.rand(3, 1, 8, 8)
    assert torch.equal(student(image), student(image))
    assert all(torch.equal(value, before[name]) for name, value in student.net.state_dict().items())


def test_the_tokens_of_a_language_model_have_probabilities_that_sum_to_one() -> None:
    sections = {"task": "language", "data": {"name": "sorting"}, "objectives": {"forward_kl": {}}}
    net = Net(causal_transformer(vocabulary=11, length=8), language_call).eval()
    student = Student(net, ("token",), "token", recipe(**sections), (8,))
    ids = torch.arange(8)[None]
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    probability = student(batch)
    assert probability.shape == (1, 8, 11)
    torch.testing.assert_close(probability.sum(-1), torch.ones(1, 8))


def test_the_student_of_the_last_stage(tmp_path: Path) -> None:
    """A stage may replace the student of the recipe."""
    stages = [{}, {"student": {"model": "cnn", "options": {"width": 5}}, "teacher": "previous"}]
    run_of(recipe("seeds=[0]", "baselines=[]", stages=stages), tmp_path / "run")
    assert instil.load(tmp_path / "run").net.model.stages[0][0].out_channels == 5


def test_the_folder_of_a_search_is_not_exported(tmp_path: Path) -> None:
    (tmp_path / "study.json").write_text("{}")
    with pytest.raises(ValueError, match=r"^RUN: .* is the folder of a search\. .*best\.yaml"):
        export(tmp_path, False)


def test_a_folder_without_a_student(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError,
        match=r"student\.safetensors is missing\. Expected the folder of a complete run",
    ):
        instil.load(tmp_path)


def test_depths_of_each_pixel() -> None:
    model = {"model": "depth_estimator", "options": {"width": 2, "levels": 1}}
    sections = {"data": {"name": "shape_depths"}, "objectives": {"scale_invariant_log": {}}}
    whole = {"task": "depth", "teacher": model, "student": model, **sections}
    net = Net(torch.nn.Conv2d(1, 1, 1), depth.call)
    student = Student(net, (), "real", instil.recipe.build(whole), (1, 4, 6))
    (first, second) = student.predict(torch.rand(2, 1, 4, 6))
    assert first.shape == second.shape == (4, 6)
