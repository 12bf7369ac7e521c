"""Language models of transformers by folder, as teachers and students of a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from instil.core import Net, Objectives
from instil.deployment.export import export
from instil.experiment.weight_precision import in_training_precision
from instil.export.transformers import to_transformers
from instil.modules.data_tokens import DataTokens
from instil.networks.factory import build, code_of
from instil.objectives.logits.forward_kl import ForwardKL
from instil.recipe import build as build_recipe
from instil.recipe.errors import RecipeError
from instil.recipe.sections import ModelConfig, TeacherConfig
from instil.schemes.offline.offline import Offline
from instil.tasks.language import call
from instil.teachers.frozen import Frozen
from instil.training.fit import fit
from instil.training.settings import Training
from tests.experiment.small import run_of
from tests.networks.sources.folders import language_recipe, write_chat, write_model
from tests.students.families import cases, family

pytest.importorskip("transformers")
CAUSAL = "transformers:AutoModelForCausalLM"
IDS = torch.randint(3, 23, (4, 9), generator=torch.Generator().manual_seed(0))
BATCH = {
    "input_ids": IDS,
    "attention_mask": torch.ones_like(IDS),
    "label": IDS.roll(-1, 1),
    "valid": torch.ones_like(IDS, dtype=torch.bool),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))
    write_chat(tmp_path / "chat.jsonl")
    return tmp_path


def recipe_of(folder: Path, **sections: Any) -> Any:
    return build_recipe(language_recipe(folder=str(folder), **sections))


@pytest.mark.parametrize("name", cases())
def test_a_step_of_training_and_the_exported_folder(name: str, tmp_path: Path) -> None:
    teacher = family(name)
    teacher.save_pretrained(tmp_path / "teacher")
    options = {"path": str(tmp_path / "teacher")}
    read = build(CAUSAL, options, pretrained=True)
    with torch.no_grad():
        own = teacher(input_ids=IDS)["logits"]
    torch.testing.assert_close(call(read.eval(), BATCH)["logits"], own)
    student = build(CAUSAL, options)
    scheme = Offline(Net(student, call), Frozen(Net(read, call)), {"kl": ForwardKL()})
    before = [parameter.clone() for parameter in student.parameters()]
    fit(scheme, [BATCH], Training(epochs=1, device="cpu"))
    assert any(
        not torch.equal(old, new) for old, new in zip(before, student.parameters(), strict=True)
    )
    written = to_transformers(Net(student, call).eval(), BATCH, tmp_path / "student")
    again = build(CAUSAL, {"path": str(tmp_path / "student")}, pretrained=True).eval()
    torch.testing.assert_close(call(again, BATCH)["logits"], call(student, BATCH)["logits"])
    assert written["max_difference"] < 1e-4


def test_a_folder_is_the_auto_class_of_the_task_with_its_weights(folder: Path) -> None:
    recipe = recipe_of(
        folder,
        teacher="transformers:teacher",
        student={"model": "transformers:student", "pretrained": False},
    )
    teacher, student = recipe.teachers[0], recipe.student
    assert (teacher.model, teacher.options, teacher.ready) == (CAUSAL, {"path": "teacher"}, True)
    assert (student.model, student.pretrained, student.is_trained) == (CAUSAL, False, False)
    stages = [{"teacher": "transformers:a"}, {"teacher": ["transformers:b", "previous"]}]
    staged = recipe_of(folder, student="transformers:c", stages=stages)
    assert staged.stages[1]["teacher"][0]["options"] == {"path": "b"}
    sections = {"task": "detection", "student": "transformers:detr"}
    with pytest.raises(RecipeError, match=r"student.model: transformers:detr names weights, and"):
        build_recipe(sections | {"data": "digit_boxes"})


@pytest.mark.slow
def test_a_cut_student_of_a_folder_with_a_padded_head(folder: Path) -> None:
    teacher = write_model(folder / "teacher", "qwen3", padding=5)
    write_model(folder / "student", "llama")
    student = {"model": "transformers:student", "changes": {"depth": {"layers": 2}}}
    recipe = recipe_of(
        folder,
        teacher="transformers:teacher",
        student=student,
        objectives={"forward_kl": {}, "top_k": {"k": 4}, "kd": {}, "gold": {}, "dskd": {}},
    )
    result = run_of(recipe, folder / "run")
    assert teacher.config.vocab_size == 264
    assert result["status"] == "complete"
    export(folder / "run", int8=False)
    again = build(CAUSAL, {"path": str(folder / "run" / "student")}, pretrained=True)
    assert again.config.num_hidden_layers == 2


def test_padding_has_no_part_in_the_loss() -> None:
    teacher, student = family("llama"), family("qwen2")
    wide = family("llama", vocab_size=29)
    with torch.no_grad():
        wide.get_input_embeddings().weight[:23] = teacher.get_input_embeddings().weight
        wide.get_output_embeddings().weight[:23] = teacher.get_output_embeddings().weight
    wide.model.layers.load_state_dict(teacher.model.layers.state_dict())
    losses = []
    for model in (teacher, wide):
        objectives = Objectives({"kl": ForwardKL()})
        objectives.selection = DataTokens(23, 23)
        scheme = Offline(Net(student, call), Frozen(Net(model, call)), objectives)
        scheme.prepare(BATCH)
        losses.append(scheme.compute_losses(BATCH).losses["kl"])
    torch.testing.assert_close(losses[1], losses[0])


def test_experts_teach_a_dense_student() -> None:
    teacher, student = family("mixtral"), family("llama")
    scheme = Offline(Net(student, call), Frozen(Net(teacher, call)), {"kl": ForwardKL()})
    scheme.prepare(BATCH)
    loss = scheme.compute_losses(BATCH).losses["kl"]
    with torch.no_grad():
        left = student(input_ids=IDS)["logits"].log_softmax(-1)
        right = teacher(input_ids=IDS)["logits"].log_softmax(-1)
    expected = (right.exp() * (right - left)).sum(-1).mean()
    torch.testing.assert_close(loss, expected)


def test_attentions_are_computed_only_if_a_loss_reads_them() -> None:
    model = family("llama")
    assert "attentions" not in call(model, BATCH)
    model.set_attn_implementation("eager")
    assert len(call(model, BATCH)["attentions"]) == 4
    assert "attentions" not in call(model, BATCH, {"logits", "hidden_states"})
    assert len(call(model, BATCH, {"attentions"})["attentions"]) == 4


def test_trained_weights_are_in_float32_and_frozen_ones_as_in_the_folder() -> None:
    def dtype_of(config: ModelConfig) -> torch.dtype:
        model = family("llama").to(torch.bfloat16)
        dtype: torch.dtype = next(in_training_precision(model, config).parameters()).dtype
        return dtype

    assert dtype_of(ModelConfig(model="teacher")) == torch.float32
    assert dtype_of(TeacherConfig(model=CAUSAL)) == torch.float32
    assert dtype_of(TeacherConfig(model=CAUSAL, is_trained=True)) == torch.bfloat16
    assert dtype_of(ModelConfig(model="teacher", changes={"lora": {}})) == torch.bfloat16
    options = {"dtype": "bfloat16"}
    assert dtype_of(ModelConfig(model=CAUSAL, options=options)) == torch.bfloat16


def test_missing_folders_and_other_weights_of_a_folder(folder: Path) -> None:
    write_model(folder / "teacher", "llama")
    recipe = recipe_of(folder, teacher="transformers:./nowhere", student={"model": "teacher"})
    with pytest.raises(RecipeError, match=r"path: no folder .*nowhere. Expected a folder that"):
        run_of(recipe, folder / "run")
    typo = recipe_of(folder, teacher="transformers:techer", student={"model": "teacher"})
    with pytest.raises(RecipeError, match=r"no folder 'techer' in .*\. Did you mean teacher"):
        run_of(typo, folder / "run")
    options = {"path": "teacher"}
    before = code_of(CAUSAL, folder, options)
    family("llama", vocab_size=30).save_pretrained(folder / "teacher")
    assert code_of(CAUSAL, folder, options) != before
