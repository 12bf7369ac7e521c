"""Students that start from the teacher of the recipe, and precomputed teachers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from instil import load
from instil.cli import summary_table
from instil.deployment.export import export
from instil.experiment.experiment import Experiment
from instil.experiment.networks import build_network
from instil.networks.gguf import gguf
from instil.networks.weights import load_weights
from instil.recipe import RecipeError
from instil.recipe import build as read
from instil.recipe.overrides import override
from instil.recipe.sections import Recipe
from tests.experiment.small import among_texts, lines, result, run_of

SPOKEN: dict[str, Any] = {
    "task": "language",
    "data": {
        "name": "text",
        "path": "texts",
        "length": 16,
        "rows": 16,
        "held_out": 4,
        "batch_size": 8,
    },
    "teacher": {"model": "causal_transformer", "options": {"width": 16, "depth": 4}},
    "student": {"model": "teacher", "changes": {"depth": {"layers": 2}}},
    "objectives": {"forward_kl": {}},
    "train": {"epochs": 2, "optimizer": {"lr": 1e-2}},
    "seeds": [0],
    "baselines": [],
}
TINY = """
import torch
from transformers import LlamaConfig, LlamaForCausalLM

def build(vocabulary):
    config = LlamaConfig(
        vocab_size=vocabulary,
        bos_token_id=None,
        eos_token_id=None,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    return LlamaForCausalLM(config)
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    among_texts(tmp_path, monkeypatch)
    (tmp_path / "tiny.py").write_text(TINY)
    return tmp_path


def spoken(*changes: str, **sections: Any) -> Recipe:
    return read(override(SPOKEN | sections, changes))


def test_a_student_begins_as_layers_of_the_trained_teacher(here: Path) -> None:
    run_of(spoken("train.optimizer.lr=1e-12", "teacher_train.optimizer.lr=1e-2"), here / "run")
    student_model = load(here / "run").net.model
    experiment = Experiment.from_recipe(
        spoken("train.optimizer.lr=1e-12", "teacher_train.optimizer.lr=1e-2")
    )
    teacher = build_network(experiment.recipe.teachers[0], experiment, "teacher").model
    (path,) = (here / "cache" / "teachers").glob("*.safetensors")
    load_weights(teacher, path)
    for position, layer in enumerate((0, 3)):
        for name, weight in student_model.base_model.stages[position].named_parameters():
            torch.testing.assert_close(
                weight, teacher.base_model.stages[layer].get_parameter(name), rtol=0, atol=1e-6
            )


def test_precomputed_teacher_outputs_equal_those_of_every_step(here: Path) -> None:
    goals = {"forward_kl": {}, "distilbert": {"layers": [[1, 2], [2, 4]]}}
    outcome = [
        run_of(spoken(f"teacher.precompute={plain}", objectives=goals), here / plain)
        for plain in ("false", "true")
    ]
    for metric in ("perplexity", "agreement", "bits_per_byte"):
        assert outcome[1]["distilled"][metric]["mean"] == pytest.approx(
            outcome[0]["distilled"][metric]["mean"], rel=1e-4
        )
    losses = [
        [record["losses"] for record in lines(here / name) if record["arm"] == "distilled"]
        for name in ("false", "true")
    ]
    assert all(one == pytest.approx(two, rel=1e-4) for one, two in zip(*losses, strict=True))
    for arm in ("teacher", "distilled"):
        rows = outcome[0]["details"][arm]["continuations"]
        assert rows
        assert all(("untrained" in row) == (arm == "distilled") for row in rows)
    gaps = [result["details"]["distilled"]["exposure_bias_gap"] for result in outcome]
    assert gaps[1] == pytest.approx(gaps[0], rel=1e-3, abs=1e-6)


def test_changes_follow_one_another_and_are_there_when_the_student_is_loaded(here: Path) -> None:
    changes = {
        "depth": {"layers": 3, "by": "influence"},
        "low_rank": {"rank": 4},
        "quantized": {"bits": 4},
    }
    recipe = spoken(student={"model": "teacher", "changes": changes})
    outcome = run_of(recipe, here / "run")
    batch = Experiment.from_recipe(recipe).splits.test.__getitems__([0, 1])
    student = load(here / "run")
    assert student.net.model.head.down.weight.shape == (4, 16)
    assert outcome["cost"]["student"]["parameters"] == sum(
        parameter.numel() for parameter in student.net.parameters()
    )
    assert student.net(batch)["logits"].shape == (2, 16, 257)


@pytest.mark.filterwarnings(
    "ignore:.*is_gradient_checkpointing.*:FutureWarning"
)  # peft uses the older name in transformers
def test_a_student_of_transformers_is_exported_with_its_adapters_in_it(here: Path) -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("peft")
    pytest.importorskip("gguf")
    recipe = spoken(
        "data.tokenizer=bpe:300",
        "data.prune=true",
        student={"model": "tiny:build", "changes": {"lora": {"rank": 2}}},
    )
    run_of(recipe, here / "run")
    with pytest.raises(ValueError, match=r"unknown weight type 'q8'.*Did you mean q8_0"):
        export(here / "run", int8=False, gguf="q8", trust_code=True)
    assert "export" not in result(here / "run")
    export(here / "run", int8=False, gguf="f16", trust_code=True)
    outcome = result(here / "run")
    for name, allowed in (("transformers", 1e-4), ("gguf", 1e-3)):
        assert outcome["export"][name]["perplexity"] == pytest.approx(
            outcome["distilled"]["perplexity"]["mean"], rel=allowed
        )
    summary_table.show_export(outcome, console := Console(record=True, width=120))
    assert "student.gguf" in console.export_text()
    assert (
        gguf(str(here / "run" / "student.gguf")).config.vocab_size
        == Experiment.from_recipe(recipe).facts["vocabulary"]
    )
    model = transformers.AutoModelForCausalLM.from_pretrained(here / "run" / "student")
    ids = transformers.AutoTokenizer.from_pretrained(here / "run" / "student")(
        "the quick brown", return_tensors="pt"
    )["input_ids"]
    with torch.no_grad():
        torch.testing.assert_close(
            model(ids).logits,
            load(here / "run", trust_code=True).net(
                {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            )["logits"],
            rtol=1e-4,
            atol=1e-4,
        )
    page = (here / "run" / "report.html").read_text()
    assert "Student, transformers" in page
    assert "Student, GGUF" in page


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"teacher": None, "objectives": {"cross_entropy": {}}},
            "student.model: 'teacher' initialises the student from its teacher",
        ),
        (
            {"student": {"model": "teacher", "options": {"width": 4}}},
            "student.options: a copy of the teacher .* got width",
        ),
        (
            {"student": {"model": "teacher", "changes": {"dept": {}}}},
            "student.changes.dept: unknown model change 'dept'. Did you mean depth",
        ),
        (
            {"student": {"model": "teacher", "changes": {"depth": {"layer": 2}}}},
            "student.changes.depth.layer: unknown option. .* Did you mean layers?",
        ),
        (
            {"student": {"model": "teacher", "changes": {"depth": {"layers": 9}}}},
            "student.changes.depth: CausalTransformer has 4 layers; 9",
        ),
        (
            {"student": {"model": "teacher", "changes": {"quantized": {"bits": 3}}}},
            "student.changes.quantized.bits: 8 or 4 was expected, not 3",
        ),
    ],
)
def test_impossible_students_are_refused_before_training(
    sections: dict[str, Any], message: str, here: Path
) -> None:
    with pytest.raises(RecipeError, match=message):
        run_of(spoken(**sections), here / "run")
    assert not (here / "run" / "checkpoint").exists()


def test_the_page_and_the_result_hold_what_was_written(here: Path) -> None:
    run_of(spoken(), here / "run")
    page = (here / "run" / "report.html").read_text()
    assert "Generated continuations of the same prompts" in page
    assert (
        json.loads((here / "run" / "result.json").read_text())["details"]["teacher"][
            "written_per_second"
        ]
        > 0
    )


def test_the_folder_is_written_where_llama_cpp_cannot_have_the_student(here: Path) -> None:
    pytest.importorskip("gguf")
    (here / "other.py").write_text(
        "from transformers import OPTConfig, OPTForCausalLM\n\n\n"
        "def build(vocabulary):\n"
        "    sizes = {'hidden_size': 16, 'num_hidden_layers': 1, 'num_attention_heads': 2}\n"
        "    sizes |= {'word_embed_proj_dim': 16, 'ffn_dim': 16, 'max_position_embeddings': 32}\n"
        "    return OPTForCausalLM(OPTConfig(vocab_size=vocabulary, **sizes))\n"
    )
    sections = {"student": {"model": "other:build"}, "teacher": None}
    sections["objectives"] = {"cross_entropy": {}}
    recipe = spoken("data.tokenizer=bpe:300", "train.epochs=1", **sections)
    run_of(recipe, here / "run")
    with pytest.raises(ValueError, match=r"Expected one of Llama.* got OPTForCausalLM") as caught:
        export(here / "run", int8=False, gguf="f16", trust_code=True)
    assert str(caught.value).endswith("is written; only student.gguf is missing")
    assert (here / "run" / "student" / "model.safetensors").exists()
    assert "transformers" in result(here / "run")["export"]
    assert not (here / "run" / "student.gguf").exists()
