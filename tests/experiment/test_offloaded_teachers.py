"""Teachers with ``cpu_offload``: the same numbers as on the device, in every use of a teacher."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from rich.console import Console
from torch import nn

from instil import distil
from instil.cli import main
from instil.engine import offload_blocks
from instil.engine.cpu_offload import Offloaded, offloaded_blocks
from instil.experiment import offloaded_teachers
from instil.experiment.experiment import Experiment
from instil.experiment.networks import build_network
from instil.experiment.teachers import as_teacher
from instil.networks.sequence_parts import TransformerBlock
from instil.plan import results
from instil.plan.doctor import doctor
from instil.plan.recording import record_outputs
from instil.recipe.errors import RecipeError
from tests.experiment.small import among_texts, lines, recipe, result, run_of
from tests.experiment.test_language_teachers import SPOKEN
from tests.networks.sources.folders import language_recipe, write_chat, write_model

OFFLOADED = SPOKEN["teacher"] | {"cpu_offload": True}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    among_texts(tmp_path, monkeypatch)
    return tmp_path


@pytest.fixture(name="passes")
def _passes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool]]:
    """Width of each block that is computed, and whether its weights are a copy."""
    passes: list[tuple[int, bool]] = []
    forward = TransformerBlock.forward

    def observing(self: TransformerBlock, *args: Any) -> Any:
        passes.append((self.norm1.weight.numel(), isinstance(self, Offloaded)))
        return forward(self, *args)

    monkeypatch.setattr(TransformerBlock, "forward", observing)
    # The latency of the teacher is measured without offload.
    monkeypatch.setattr(results, "without_offload", lambda network: contextlib.nullcontext())
    return passes


def figures(out: Path) -> list[Any]:
    """Return what a run has measured, without times."""
    content = result(out)
    names = ("epoch", "loss", "losses", "validation")
    records = [{name: line.get(name) for name in names} for line in lines(out)]
    return [*(content.get(arm) for arm in ("teacher", "distilled", "gain")), records]


ENSEMBLE = {"model": "causal_transformer", "options": {"width": 32}, "is_trained": True}


@pytest.mark.parametrize("changes", [{"precompute": True}, ENSEMBLE], ids=["cached", "ensemble"])
def test_the_same_numbers(
    here: Path, passes: list[tuple[int, bool]], changes: dict[str, Any]
) -> None:
    for out, teacher in (("offloaded", OFFLOADED), ("plain", SPOKEN["teacher"])):
        is_ensemble = changes is ENSEMBLE
        section = [teacher, changes] if is_ensemble else teacher | changes
        run_of(recipe(**SPOKEN | {"teacher": section}), here / out)
        is_offloaded = out == "offloaded"
        assert {copied for width, copied in passes if width == 16} == {is_offloaded}
        assert {copied for width, copied in passes if width != 16} == {False}
        passes.clear()
    assert figures(here / "offloaded") == figures(here / "plain")


def test_doctor_and_recording(here: Path, passes: list[tuple[int, bool]]) -> None:
    findings = doctor(recipe(**SPOKEN | {"teacher": OFFLOADED}))
    assert {copied for width, copied in passes if width == 16} == {True}
    plain = doctor(recipe(**SPOKEN))
    first, second = (one["stages"][0]["objectives"] for one in (findings, plain))
    assert first == second
    passes.clear()
    record_outputs(recipe("store.path=answers", **SPOKEN | {"teacher": OFFLOADED}), _quiet())
    assert {copied for width, copied in passes if width == 16} == {True}
    # A recording does not depend on the option.
    run_of(recipe("store.path=answers", **SPOKEN), here / "recorded")
    run_of(recipe(**SPOKEN), here / "live")
    assert figures(here / "recorded")[1:] == figures(here / "live")[1:]


def test_a_student_that_starts_from_the_teacher() -> None:
    student = {"model": "teacher", "changes": {"depth": {"layers": [0, 2]}}}
    experiment = Experiment.from_recipe(
        recipe(**SPOKEN | {"teacher": OFFLOADED, "student": student})
    )
    teacher = build_network(experiment.recipe.teachers[0], experiment, "teacher")
    assert len(offloaded_blocks(teacher)) == 3
    copied = build_network(experiment.recipe.student, experiment, "student", teacher)
    assert offloaded_blocks(copied) == []
    assert all(parameter.requires_grad for parameter in copied.parameters())


@pytest.mark.slow
def test_the_command_with_a_folder(here: Path) -> None:
    write_model(here / "teacher", "llama")
    write_chat(here / "chat.jsonl")
    model = "transformers:AutoModelForCausalLM"
    teacher = {"model": model, "options": {"path": "teacher"}, "is_trained": True}
    student = {"model": "teacher", "changes": {"depth": {"layers": [0]}}}
    sections = language_recipe(teacher=teacher, student=student, baselines=[])
    (here / "my.yaml").write_text(yaml.safe_dump(sections))
    for out, change in (("plain", []), ("offloaded", ["teacher.cpu_offload=true"])):
        with pytest.raises(SystemExit) as ended:
            main(["run", "my.yaml", *change, "--out", out])
        assert not ended.value.code
    assert figures(here / "offloaded") == figures(here / "plain")


def test_the_teacher_of_a_sharded_training_outside_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = Experiment.from_recipe(recipe("train.shard=true", **SPOKEN))
    config = experiment.recipe.teachers[0]
    for num_processes, num_blocks in ((1, 0), (2, 3)):
        monkeypatch.setattr(offloaded_teachers, "world_size", lambda size=num_processes: size)
        teacher = as_teacher([build_network(config, experiment, "teacher")])
        assert teacher is not None
        moved = offloaded_teachers.move_teacher(teacher, experiment.recipe.train)
        assert len(offloaded_blocks(moved)) == num_blocks


def test_a_module_as_a_teacher() -> None:
    def network(width: int) -> nn.Module:
        blocks = [nn.Sequential(nn.Linear(size, width), nn.ReLU()) for size in (16, width)]
        return nn.Sequential(nn.Flatten(), *blocks, nn.Linear(width, 3))

    loader = [(torch.randn(8, 1, 4, 4), torch.randint(3, (8,))) for _ in range(2)]
    weights = []
    for num_blocks in (0, 2):
        torch.manual_seed(0)
        teacher, student = network(16), network(4)
        if num_blocks:
            assert len(offload_blocks(teacher)) == num_blocks
        distil(teacher, student, loader, epochs=1, progress=False)
        weights.append(student.state_dict())
    torch.testing.assert_close(weights[1], weights[0], atol=0, rtol=0)


def test_teachers_that_cannot_be_offloaded() -> None:
    for teacher, message in (
        (SPOKEN["teacher"] | {"is_trained": False}, "this teacher is trained here, with all"),
        ({"model": "onnx:teacher.onnx"}, "onnx:teacher.onnx has no weights on the device"),
        ({"model": "previous"}, "this teacher is trained here, with all"),
    ):
        with pytest.raises(RecipeError, match=f"^teacher: cpu_offload: {message}"):
            recipe(**SPOKEN | {"teacher": teacher | {"cpu_offload": True}})
    linear = {"model": "mlp", "options": {"depth": 0}, "is_trained": True}
    small = recipe(teacher=linear | {"cpu_offload": True})
    with pytest.raises(RecipeError, match=r"^teacher.cpu_offload: MLP has no repeated blocks"):
        doctor(small)


def _quiet() -> Console:
    return Console(quiet=True)
