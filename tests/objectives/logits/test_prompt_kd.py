"""PromptKD against a loop, and in a recipe: one set of class embeddings for both sides."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from instil import recipe as recipes
from instil.core import Batch
from instil.experiment.dry_run import dry_run
from instil.experiment.experiment import Experiment
from instil.experiment.networks import build_network
from instil.objectives.logits.prompt_kd import PromptKD, prompt_kd_loss
from instil.recipe import RecipeError

RECIPE = "prompt_kd"


def unit(*shape: int) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, dtype=torch.float64), dim=-1)


def test_agrees_with_loops() -> None:
    student, teacher, classes = unit(4, 5), unit(4, 5), unit(3, 5)
    for temperature in (1.0, 2.0):
        expected = []
        for n in range(4):
            sides = []
            for image, scale in ((student[n], 7.0), (teacher[n], 9.0)):
                scores = [np.exp(scale * float(image @ classes[c]) / temperature) for c in range(3)]
                sides.append([score / sum(scores) for score in scores])
            q, p = sides
            kl = sum(p[c] * np.log(p[c] / q[c]) for c in range(3))
            expected.append(temperature**2 * kl)
        loss = prompt_kd_loss(student, teacher, classes, 7.0, 9.0, temperature, "none")
        assert np.allclose(loss, expected)


def test_another_width_is_projected_and_no_text_of_the_student_is_read() -> None:
    student = {"image_embedding": torch.randn(4, 3), "logit_scale": torch.ones(1)}
    teacher = {
        "image_embedding": torch.randn(4, 5),
        "class_embedding": torch.randn(2, 5),
        "logit_scale": torch.ones(1),
    }
    objective = PromptKD()
    objective.build(student, teacher)
    assert list(objective.projections) == ["image_embedding"]
    assert objective(student, teacher, {}).shape == (4,)


def batch_of(experiment: Experiment) -> Batch:
    return experiment.splits.test.__getitems__(range(6))


def test_the_teacher_embeds_the_prompts_once_until_its_weights_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    experiment = Experiment.from_recipe(recipes.load(RECIPE))
    net = build_network(experiment.recipe.teachers[0], experiment, "teacher").eval()
    calls = []
    embed = experiment.task.prompts.embedding
    monkeypatch.setattr(
        experiment.task.prompts, "embedding", lambda *args: calls.append(1) or embed(*args)
    )
    batch = batch_of(experiment)
    first = net(batch)["class_embedding"]
    assert torch.equal(net(batch)["class_embedding"], first)
    assert len(calls) == 1
    torch.testing.assert_close(first.norm(dim=1), torch.ones(10))
    assert not first.requires_grad
    with torch.no_grad():
        weight = net.model.text.head.weight  # type: ignore[union-attr]
        weight.mul_(torch.rand_like(weight))  # type: ignore[operator, arg-type]
    assert not torch.allclose(net(batch)["class_embedding"], first)
    assert len(calls) == 2


def test_without_templates_there_are_no_classes() -> None:
    recipe = recipes.load(RECIPE, ["task={name: image_text}"])
    experiment = Experiment.from_recipe(recipe)
    net = build_network(recipe.teachers[0], experiment, "teacher")
    assert "class_embedding" not in net(batch_of(experiment))
    with pytest.raises(RecipeError, match=r"class_embedding"):
        list(dry_run(experiment))


def test_only_the_image_tower_learns_and_both_sides_share_the_class_embeddings() -> None:
    experiment = Experiment.from_recipe(recipes.load(RECIPE))
    teacher = build_network(experiment.recipe.teachers[0], experiment, "teacher").eval()
    student = build_network(experiment.recipe.student, experiment, "student", teacher).eval()
    trainable = {name for name, part in student.model.named_parameters() if part.requires_grad}
    assert {name.split(".")[0] for name in trainable} == {"image"}
    assert student.model.image.head.weight.shape == (32, 16)  # type: ignore[union-attr]
    batch = batch_of(experiment)
    embedding = experiment.task.prompts.embedding(student, batch)
    torch.testing.assert_close(embedding, teacher(batch)["class_embedding"])
