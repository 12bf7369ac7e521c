"""A model with other tokens than the data raises an error."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from instil.experiment.dry_run import dry_run
from instil.experiment.experiment import Experiment
from instil.experiment.teachers import teacher_training_data
from instil.plan.doctor import doctor
from instil.recipe import RecipeError
from instil.recipe.sections import Recipe
from tests.data.small_tokenizer import folder_of
from tests.experiment.small import among_texts, recipe, run_of
from tests.students.nets import llama

MODULE = """
from transformers import AutoModelForCausalLM


def build(folder):
    return AutoModelForCausalLM.from_pretrained(folder)
"""
SIZE = 300


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with texts, a model with tokenizer, and a tokenizer of equal size."""
    pytest.importorskip("transformers")
    among_texts(tmp_path, monkeypatch)
    (tmp_path / "own_model.py").write_text(MODULE)
    folder_of(tmp_path / "model", ["<s>", "</s>"])
    llama(vocab_size=SIZE, num_hidden_layers=2).save_pretrained(tmp_path / "model")
    whole = json.loads((tmp_path / "model" / "tokenizer.json").read_text())
    vocab = whole["model"]["vocab"]
    first, second = sorted(vocab, key=vocab.__getitem__)[40:42]
    vocab[first], vocab[second] = vocab[second], vocab[first]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "tokenizer.json").write_text(json.dumps(whole))
    return tmp_path


def taught(tokenizer: str, **sections: Any) -> Recipe:
    data = {"name": "text", "path": "texts", "length": 16, "rows": 8, "held_out": 4}
    whole: dict[str, Any] = {
        "task": "language",
        "data": data | {"batch_size": 4, "tokenizer": tokenizer},
        "teacher": {"model": "own_model:build", "options": {"folder": "model"}, "is_trained": True},
        "student": {"model": "causal_transformer", "options": {"width": 8, "depth": 1}},
        "objectives": {"forward_kl": {}},
        "train": {"epochs": 1},
        "seeds": [0],
        "baselines": [],
    }
    return recipe(**whole | sections)


def test_another_tokenizer_of_the_same_size_is_refused_by_its_token() -> None:
    list(dry_run(Experiment.from_recipe(taught("model"))))
    message = (
        r"^data\.tokenizer: token 40 is '.+' here and '.+' for the teacher, whose tokenizer is in"
    )
    with pytest.raises(RecipeError, match=message):
        list(dry_run(Experiment.from_recipe(taught("other"))))
    with pytest.raises(RecipeError, match=r"data\.tokenizer: token 0 is 'byte 0' here and '<s>'"):
        list(dry_run(Experiment.from_recipe(taught("bytes"))))


def test_the_doctor_refuses_it_too() -> None:
    with pytest.raises(RecipeError, match=r"data\.tokenizer: token 40 is"):
        doctor(taught("other"))


def test_the_student_is_compared_too() -> None:
    sections: dict[str, Any] = {
        "teacher": None,
        "objectives": {"cross_entropy": {}},
        "student": {"model": "own_model:build", "options": {"folder": "model"}},
    }
    with pytest.raises(RecipeError, match="for the student, whose tokenizer is in"):
        list(dry_run(Experiment.from_recipe(taught("other", **sections))))


def test_a_teacher_that_guesses_worse_than_chance_is_named_by_doctor_and_run(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(here / "model", here / "moved")
    (here / "model" / "tokenizer.json").unlink()
    report = doctor(taught("moved"))
    (problem,) = [one for one in report["problems"] if "uniform" in one]
    assert problem.startswith("teacher: on the first batch its loss is ")
    assert "worse than a uniform distribution over its 300 tokens (5.7)" in problem
    assert problem.endswith("another one than that of the data (data.tokenizer)")
    result = run_of(taught("moved"), here / "run")
    assert [one for one in result["warnings"] if "uniform" in one] == [problem]


def test_a_net_that_knows_the_text_raises_no_doubt() -> None:
    experiment = Experiment.from_recipe(taught("bytes", teacher={"model": "causal_transformer"}))
    list(dry_run(experiment))
    assert experiment.warnings == [], "what is trained later may guess now"


def test_other_special_tokens_of_the_teacher_are_a_warning(here: Path) -> None:
    shutil.copytree(here / "model", here / "chat")
    for folder, end in (("model", "<s>"), ("chat", "</s>")):
        config = {"eos_token": end, "chat_template": f"{{{{ messages }}}}{end}"}
        (here / folder / "tokenizer_config.json").write_text(json.dumps(config))
        (here / folder / "generation_config.json").unlink(missing_ok=True)
    experiment = Experiment.from_recipe(taught("chat"))
    list(dry_run(experiment))
    ends, template, *_ = experiment.warnings
    assert ends.startswith("teacher: its texts end with <s>, those of the data with </s>.")
    assert template.startswith("teacher: its chat template is another one than that of the data.")
    same = Experiment.from_recipe(taught("model"))
    list(dry_run(same))
    assert not [warning for warning in same.warnings if "template" in warning or "end" in warning]


@pytest.mark.parametrize("own", [{}, {"tokenizer": "bpe:260"}, {"tokenizer": "bpe:258"}])
def test_a_teacher_is_trained_on_the_tokens_that_it_reads(own: dict[str, Any]) -> None:
    teacher = {
        "model": "causal_transformer",
        "options": {"width": 8, "depth": 1},
        "data": {"name": "text", "path": "texts", "length": 16, "rows": 6, "held_out": 4} | own,
    }
    experiment = Experiment.from_recipe(taught("bpe:260", teacher=teacher))
    if own.get("tokenizer") == "bpe:260":
        assert teacher_training_data(experiment, experiment.recipe.teachers[0], 0)
        return
    with pytest.raises(RecipeError, match=r"^teacher.data: token .* Expected the same 260"):
        teacher_training_data(experiment, experiment.recipe.teachers[0], 0)
