"""Representation learning: probes of frozen embeddings, students without labels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from instil import recipe as recipes
from instil.core import Net
from instil.functional.probes import knn_votes, ridge_scores
from instil.objectives.features.simreg import SimReg
from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.plan.run import run
from instil.tasks.representation import Representation
from tests.search.recipes import silent
from tests.tasks.samples import ImageEncoder, partly_labelled_images


def test_each_sample_is_classified_by_the_other_labelled_ones_of_all_batches() -> None:
    task, batch = Representation(), partly_labelled_images()
    torch.manual_seed(0)
    model = ImageEncoder().eval()
    metrics, _ = task.evaluate(model, [batch])
    rows = batch["label"] != -100
    embedding, label = model(batch["image"])["embedding"][rows], batch["label"][rows]
    for name, scores in (
        ("accuracy", ridge_scores(embedding, label, 3)),
        ("knn", knn_votes(embedding, label, 3)),
    ):
        assert metrics[name] == pytest.approx((scores.argmax(1) == label).double().mean().item())
    halves = [
        {key: value[part] for key, value in batch.items()} for part in (slice(4), slice(4, 12))
    ]
    assert task.evaluate(model, halves)[0] == pytest.approx(metrics)
    assert task.evaluate(model, [batch], Net(model, task.call))[0]["agreement"] == pytest.approx(1)


def test_labels_and_embeddings_are_needed() -> None:
    task, batch = Representation(), partly_labelled_images()
    unlabelled = batch | {"label": torch.full((12,), -100)}
    with pytest.raises(ValueError, match="0 evaluated samples have a label"):
        task.evaluate(ImageEncoder(), [unlabelled])
    with pytest.raises(ValueError, match=r"a probe reads embeddings\..* got logits"):
        task.evaluate(torch.nn.Flatten(), [batch])
    broken = ImageEncoder()
    torch.nn.init.constant_(broken.inner.head.bias, torch.nan)
    with pytest.raises(ValueError, match="10 of 10 embeddings are not finite"):
        task.evaluate(broken, [batch])


def test_objectives_on_labels_are_refused() -> None:
    Representation().check({"simreg": SimReg()})
    with pytest.raises(ValueError, match=r"objectives\.cross_entropy: CrossEntropy reads labels"):
        Representation().check({"cross_entropy": CrossEntropy()})


def test_the_default_baseline_is_the_untrained_student() -> None:
    recipe = recipes.load("representation")
    assert recipe.baselines == ["random_init"]
    labelled = recipes.load("representation", ["data.num_labeled=null"])
    assert labelled.baselines == ["random_init"]
    assert recipes.load("classification/label_free").baselines == []


def test_a_run_compares_the_student_with_its_initial_weights(tmp_path: Path) -> None:
    changes = ["train.epochs=2", "teacher_train.epochs=1", "seeds=[0]", "export=false"]
    recipe = recipes.load("representation", [*changes, "student.options.width=2"])
    folder = run(recipe, tmp_path / "run", None, silent())
    result = json.loads((folder / "result.json").read_text())
    untrained = result["random_init"]["accuracy"]["mean"]
    gain = result["distilled"]["accuracy"]["mean"] - untrained
    assert result["gains"]["random_init"]["mean"] == pytest.approx(gain)
    assert result["labels"]["samples_seen"] == {"random_init": 0, "distilled": 1000}
    assert "Random initialisation" in (folder / "report.html").read_text()


def test_every_network_gets_images_in_its_own_size_and_normalisation() -> None:
    class Pixels(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"embedding": image.flatten(1)}

    image = torch.rand(3, 1, 4, 4)
    outputs = Representation.call(Pixels(), {"image": image}, size=2, mean=[0.5], std=[0.25])
    small = torch.nn.functional.interpolate(image, (2, 2), mode="bilinear", antialias=True)
    torch.testing.assert_close(outputs["embedding"], ((small - 0.5) / 0.25).flatten(1))
