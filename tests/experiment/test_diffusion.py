"""Recipes of diffusion models: a run with its report, the loaded student, export, wrong input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import instil
from instil.core import Net
from instil.experiment.dry_run import dry_run
from instil.experiment.experiment import Experiment
from instil.experiment.networks import build_network
from instil.export.onnx import to_onnx
from instil.export.onnx_sampler import OnnxSampler
from instil.export.session import Session
from instil.generation.diffusion_sampler import sample_images
from instil.generation.sampler_table import sampler_table
from instil.modules.denoiser import SOLVERS, Denoiser
from instil.modules.denoiser_call import denoiser_call
from instil.modules.noisy_sample import to_image_range
from instil.networks.unet import unet
from instil.plan.doctor import doctor
from instil.recipe.errors import RecipeError
from instil.recipe.sections import ModelConfig, Recipe
from instil.tasks.bases.image_sampler import ImageSampler
from instil.tasks.diffusion import Diffusion
from tests.experiment.small import recipe, result, run_of

NETWORK: dict[str, Any] = {
    "model": "denoiser",
    "options": {"network_options": {"width": 4}, "conditional": True, "steps": 3, "guidance": 0.5},
}
CONDITIONAL: dict[str, Any] = {"conditional": True}
SECTIONS: dict[str, Any] = {
    "task": {"name": "diffusion", "num_samples": 50},
    "data": {"name": "digits", "batch_size": 250},
    "teacher": NETWORK,
    "student": {"model": "teacher", "options": {"steps": 2, "solver": "consistency"}},
    "objectives": {"denoising": {}},
    "train": {"epochs": 1, "evaluate_every": 9, "average": 0.5},
    "seeds": [0],
}


def small(*changes: str) -> Recipe:
    return recipe(*changes, **SECTIONS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("diffusion") / "run"
    run_of(small(), out)
    return out


def test_a_run_compares_teacher_and_students(folder: Path) -> None:
    outcome = result(folder)
    assert outcome["status"] == "complete"
    assert outcome["headline"] == "frechet_distance"
    assert outcome["higher_is_better"] is False
    assert outcome["teacher"]["steps"]["mean"] == 3
    for arm in ("alone", "distilled"):
        metrics = outcome[arm]
        assert metrics["steps"]["mean"] == 2
        assert metrics["frechet_distance"]["mean"] > 0
        assert metrics["teacher_same_steps"]["mean"] > 0
        assert 0 <= metrics["coverage"]["mean"] <= 1
    assert "pseudo_labels" not in outcome


def test_the_page_shows_generated_images(folder: Path) -> None:
    page = (folder / "report.html").read_text()
    for title in ("Teacher", "Student alone", "Distilled student", "Test images"):
        assert f'alt="{title}: images in rows of eight"' in page
    assert "They do not compare with published values of FID" in page
    assert "trained on 1000 labelled images" in page


def test_the_loaded_student_generates_images(folder: Path) -> None:
    student = instil.load(folder)
    images = student.sample(3, label=[0, 1, 2], seed=1)
    assert images.shape == (3, 1, 8, 8)
    assert images.min() >= 0
    assert images.max() <= 1
    assert torch.equal(images, student.sample(3, [0, 1, 2], seed=1))
    assert not torch.equal(images, student.sample(3, [0, 1, 2], seed=2))
    assert not torch.equal(images, student.sample(3, [0, 1, 2], steps=5, seed=1))
    with pytest.raises(ValueError, match="steps: too few sampling steps"):
        student.sample(3, steps=0)
    with pytest.raises(ValueError, match="are denoised, not classes"):
        student(images)


@pytest.mark.slow
def test_the_exported_step_is_sampled_without_torch(folder: Path) -> None:
    pytest.importorskip("onnxruntime")
    from instil.deployment.export import export

    export(folder, int8=False)
    onnx = result(folder)["export"]["onnx"]
    assert onnx["max_difference"] < 1e-4
    expected = result(folder)["distilled"]["frechet_distance"]["mean"]
    assert onnx["frechet_distance"] == pytest.approx(expected, rel=1e-3)
    sampler = OnnxSampler(folder / "student.onnx")
    student = instil.load(folder)
    noise = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    label = torch.arange(5)
    denoiser = student.net.model
    assert isinstance(denoiser, Denoiser)
    for solver in SOLVERS:
        # The solver consistency draws other noise; its first step is compared.
        steps = 1 if solver == "consistency" else 4
        denoiser.reconfigure(solver=solver, steps=steps)
        sampler.table = sampler_table(denoiser)
        images = sampler.from_noise(noise.numpy(), label.numpy())
        wanted_images = student.sample(5, label)
        np.testing.assert_allclose(images, wanted_images.numpy(), atol=1e-4)
    assert sampler(2).shape == (2, 1, 8, 8)


@pytest.mark.slow
@pytest.mark.parametrize("key", ["end_time", "guidance"])
def test_the_exported_step_reads_the_numbers_of_the_network(key: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    denoiser = networks_denoiser(key)
    net = Net(denoiser, denoiser_call)
    task = Diffusion()
    images = torch.rand(4, 1, 8, 8)
    label = torch.arange(4) % 3
    batch = {"image": images, "index": torch.arange(4), "label": label}
    example, roles = task.export_example(net, batch)
    metadata = {"input_shape": "[1, 8, 8]"} | task.graph_metadata(net)
    path = tmp_path / "student.onnx"
    to_onnx(net, example, path, task.graph_inputs(net), metadata, roles)
    sampler = OnnxSampler(path)
    noise = torch.randn(4, 1, 8, 8)
    for solver in ("ddim", "heun"):
        denoiser.reconfigure(solver=solver)
        sampler.table = sampler_table(denoiser)
        with torch.no_grad():
            expected = to_image_range(sample_images(denoiser, noise, label))
        sampled = sampler.from_noise(noise.numpy(), label.numpy())
        np.testing.assert_allclose(sampled, expected.numpy(), atol=1e-4)
        exported = task.sampler(Net(Session(path, roles), task.call_exported))
        generated = exported.generate(4, (1, 8, 8), label)
        plain = ImageSampler(denoiser).generate(4, (1, 8, 8), label)
        torch.testing.assert_close(generated, plain, atol=1e-4, rtol=0)


def networks_denoiser(key: str) -> Denoiser:
    """Return a conditional U-Net that reads a number, with random weights."""
    torch.manual_seed(0)
    network = unet(1, 3, width=4, levels=2, scalars=(key,))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, 0, 0.3)
    return Denoiser(network, "flow", "flow", num_classes=3, steps=3, guidance=2.0)


def test_the_classifier_of_a_scheme_has_the_normalisation_of_its_weights() -> None:
    pytest.importorskip("timm")
    experiment = Experiment.from_recipe(small("data.batch_size=10"))
    images = torch.rand(2, 1, 8, 8)
    # As of a model with weights, and by the section of a network that was trained with it.
    config = ModelConfig(model="cnn", input={"mean": [0.4], "std": [0.2]})
    net = build_network(config, experiment, "scheme.classifier").eval()
    torch.testing.assert_close(net({"image": images})["logits"], net.model((images - 0.4) / 0.2))
    config = ModelConfig(model="timm:vit_tiny_patch16_224", options={"img_size": 32})
    net = build_network(config, experiment, "scheme.classifier").eval()
    resized = F.interpolate(images, (32, 32), mode="bilinear", antialias=True)
    torch.testing.assert_close(net({"image": images})["logits"], net.model(resized))
    assert len(net({"image": images})["features"]) == 4


def test_the_doctor_finds_nothing_wrong() -> None:
    problems = doctor(small())["problems"]
    assert [problem for problem in problems if "of the gradient" not in problem] == []


def test_unlabelled_images_of_a_file(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (60, 28, 28), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", picture=images)
    network = {"model": "denoiser", "options": {"network_options": {"width": 4}, "steps": 1}}
    unlabelled = recipe(
        task={"name": "diffusion", "kind": "none"},
        data={
            "name": "npz",
            "path": str(tmp_path / "images.npz"),
            "columns": {"image": "picture"},
            "batch_size": 20,
        },
        teacher=network,
        student=network,
        objectives={"denoising": {}},
        train={"epochs": 1, "evaluate_every": 9},
        baselines=[],
        seeds=[0],
    )
    outcome = run_of(unlabelled, tmp_path / "run")
    assert outcome["details"]["distilled"]["features"].startswith("pixels of the images")
    assert outcome["distilled"]["frechet_distance"]["mean"] > 0
    student = instil.load(tmp_path / "run")
    assert student.sample(2).shape == (2, 1, 28, 28)
    with pytest.raises(RecipeError, match=r"conditional: the data have no classes"):
        doctor(
            unlabelled.model_copy(
                update={"student": unlabelled.student.model_copy(update={"options": CONDITIONAL})}
            )
        )


@pytest.mark.parametrize("key", ["schedule=flow", "times=logit_normal"])
def test_compared_networks_draw_the_same_noise(key: str) -> None:
    changes = [
        "student.model=denoiser",
        f"student.options.{key}",
        "objectives.denoised_matching={}",
    ]
    name = key.partition("=")[0]
    with pytest.raises(RecipeError, match=rf"^student\.options\.{name}: student and teacher draw"):
        doctor(small(*changes))
    # Schemes of diffusion translate noise levels, and labels need no teacher.
    translated = ["objectives={denoised_matching: {}}", "scheme=consistency_distillation"]
    for ending in (translated, ["objectives={denoising: {}}"]):
        next(dry_run(Experiment.from_recipe(small(*changes, *ending))))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["teacher.options.steps=0"], r"teacher.options.steps: a number of at least 1"),
        (["student.options.solver=rk4"], r"student: solver: unknown solver 'rk4'"),
        (["student.options.width=8"], r"student.options.width: a built denoiser has no such"),
        (
            ["teacher.options.parameterisation=noise"],
            r"teacher.options.parameterisation: unknown type 'noise'",
        ),
        (
            ["teacher.options.conditional=false"],
            r"teacher.options.guidance: the model reads no label",
        ),
        (["student={model: cnn}"], r"student.model: .*CNN is not a diffusion model"),
        (["task.features=inception"], r"task.*features"),
        (["objectives={kd: {}}"], r"kd"),
        (
            ["teacher.precompute=true"],
            r"teacher.precompute: teachers of the task diffusion read noise",
        ),
        (["student.options.schedule=flow"], r"student.options.schedule: the weights of the tea"),
        (
            ["student.options.parameterisation=x0"],
            r"options.parameterisation: .*Expected v, got x0",
        ),
        (
            ["teacher.options.network_options={width: 4, scalars: [guidance]}"],
            r"teacher.options.guidance: .* Expected 0, got 0.5. Set guidance in student.options",
        ),
        (["teacher.num_replicas=2"], r"teacher: outputs of several teachers"),
        (["store={path: outputs}"], r"store: teachers of the task diffusion read noise"),
        (["baselines=[pseudo_labels]"], r"baselines.*pseudo_labels"),
    ],
)
def test_wrong_input_is_refused_before_training(changes: list[str], message: str) -> None:
    with pytest.raises((RecipeError, ValueError), match=message):
        doctor(small(*changes))
