"""Evaluation of diffusion models: generated images, features, sampling of an exported step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from instil.core import Batch
from instil.data.sources.digits import digits
from instil.functional.sample_quality import frechet_distance
from instil.modules.denoiser import Denoiser
from instil.modules.denoiser_call import denoiser_call
from instil.modules.noisy_sample import to_model_range
from instil.taps import Net
from instil.tasks.bases.image_features import classifier_features, pixel_features
from instil.tasks.diffusion import Diffusion
from instil.teachers.frozen import Frozen


class Shade(nn.Module):
    """Denoiser that returns a grey value per class, more of it with each call."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, noisy: Tensor, time: Tensor, label: Tensor) -> Tensor:
        self.calls += 1
        return (label.view(-1, 1, 1, 1) / 4 + 0.01 * noisy).expand_as(noisy)


def batch(size: int = 20) -> Batch:
    image = torch.rand(size, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return {"image": image, "label": torch.arange(size) % 3, "index": torch.arange(size)}


def net(**options: Any) -> Net:
    options = {"parameterisation": "x0", "schedule": "flow", "num_classes": 3} | options
    return Net(Denoiser(Shade(), **options), denoiser_call)


def test_metrics_are_those_of_the_generated_images() -> None:
    task = Diffusion()
    model = net(steps=1)
    metrics, details = task.evaluate(model, [batch()])
    noise = torch.randn(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = (batch()["label"].view(-1, 1, 1, 1) / 4 + 0.01 * noise + 1) / 2
    generated = task.sampler(model).generate(20, (1, 8, 8), batch()["label"])
    assert torch.allclose(generated, expected)
    features = pixel_features()
    distance = frechet_distance(features(expected), features(batch()["image"]))
    assert metrics["frechet_distance"] == pytest.approx(distance.item(), rel=1e-4)
    assert metrics["steps"] == 1
    assert set(metrics) == {
        "frechet_distance",
        "precision",
        "recall",
        "density",
        "coverage",
        "steps",
    }
    assert details["features"].startswith("pixels")
    assert details["samples"] != details["real_samples"]


def test_the_number_of_images_and_excluded_samples() -> None:
    task = Diffusion(num_samples=7)
    model = net(steps=2)
    task.evaluate(model, [batch()])
    excluded = batch() | {"valid": torch.arange(20) < 10}
    excluded["image"] = excluded["image"].clone()
    excluded["image"][10:] = float("nan")
    first = {key: value[:10] for key, value in batch().items()}
    assert task.evaluate(model, [excluded]) == task.evaluate(model, [first])
    with pytest.raises(ValueError, match="fewer than two images"):
        task.evaluate(model, [{key: value[:1] for key, value in batch().items()}])


def test_unlabelled_images_and_tuples_of_a_loader() -> None:
    task = Diffusion("none")
    image = batch()["image"]
    unlabelled = torch.full((20,), -100)
    values = task.evaluate(net(steps=1), [(image, unlabelled)])[0]
    assert values == task.evaluate(net(steps=1), [{"image": image}])[0]


def test_the_teacher_with_as_many_steps_as_the_student() -> None:
    task = Diffusion()
    teacher = net(steps=8)
    samples = digits().test
    metrics, _ = task.evaluate_generation(net(steps=2), samples, Frozen(teacher))
    real = samples.image
    images = task.sampler(teacher, steps=2).generate(len(real), (1, 8, 8), samples.label)
    features = task.features
    expected = frechet_distance(features(images), features(real))
    assert metrics["teacher_same_steps"] == pytest.approx(expected.item(), rel=1e-5)
    assert metrics["seconds_per_image"] > 0
    assert "teacher_same_steps" not in task.evaluate_generation(teacher, samples)[0]


def test_classifier_features_are_trained_once(monkeypatch: pytest.MonkeyPatch) -> None:
    train = digits().train.subset(range(300))
    state = torch.get_rng_state()
    features = classifier_features(train)
    assert torch.equal(torch.get_rng_state(), state)
    assert "trained on 300 labelled images" in features.name
    assert float(features.name.rpartition("accuracy ")[2].split()[0]) > 90
    images = train.image[:9]
    values = features(images)
    assert values.shape == (9, 64)
    monkeypatch.setattr("instil.tasks.bases.image_features._train", None)
    assert torch.equal(classifier_features(train)(images), values)
    task = Diffusion()
    data = digits()
    task.set_data(replace(data, train=train))
    assert torch.equal(task.features(images), values)
    pixels = Diffusion(features="pixels")
    pixels.set_data(replace(data, train=train))
    assert pixels.features(images).shape == (9, 64)
    assert not torch.equal(pixels.features(images), values)


def test_images_that_are_not_finite_are_refused() -> None:
    class Infinite(nn.Module):
        def forward(self, noisy: Tensor, time: Tensor) -> Tensor:
            return noisy / 0

    model = Net(Denoiser(Infinite(), "x0", "flow", steps=1), denoiser_call)
    with pytest.raises(ValueError, match="20 of 20 generated images have values that are not"):
        Diffusion().evaluate(model, [batch()])


def test_wrong_data_models_and_labels() -> None:
    task = Diffusion()
    with pytest.raises(
        ValueError, match=r"image: wrong range. Expected values in \[0, 1\], got -1"
    ):
        task.check_data(batch() | {"image": to_model_range(torch.eye(8).expand(20, 1, 8, 8))})
    with pytest.raises(ValueError, match=r"image: wrong form. Expected floating-point images"):
        task.check_data(batch() | {"image": torch.zeros(20, 8, 8)})
    with pytest.raises(ValueError, match="is not a diffusion model"):
        task.check_model(nn.Linear(1, 1), {})
    with pytest.raises(ValueError, match="learns from images, not from labels"):
        task.pseudo_labels({}, torch.zeros(2))
    unlabelled = digits().train.keep_labels(torch.zeros(0, dtype=torch.int64))
    with pytest.raises(ValueError, match="no labels to train a classifier on"):
        Diffusion(features="classifier").set_data(replace(digits(), train=unlabelled))


def test_an_exported_step_samples_the_same_images() -> None:
    task = Diffusion()
    model = net(steps=3, guidance=0.5, label_dropout=0.9)
    assert task.graph_inputs(model) == ("noisy", "time", "label")
    example, roles = task.export_example(model, batch() | {"seed": 0, "step": 0})
    assert roles == ("denoised",)
    assert (example["label"] == 3).any()

    class Graph(nn.Module):
        def forward(self, inputs: Batch) -> Batch:
            assert set(inputs) == {"noisy", "time", "label"}
            return {"denoised": model(inputs)["denoised"]}

    graph = Net(Graph(), task.call_exported)
    assert task.evaluate(graph, [batch()])[0] == task.evaluate(model, [batch()])[0]
