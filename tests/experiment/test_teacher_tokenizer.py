"""A complete run with a teacher that has another tokenizer than its student."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from rich.console import Console

from instil import recipe as recipes
from instil.data.aligned import AlignedRows
from instil.data.token_rows import TokenRows
from instil.experiment.dry_run import dry_run
from instil.experiment.experiment import Experiment
from instil.plan.run import run
from instil.recipe.errors import RecipeError

RECIPE = Path(__file__).parents[2] / "src/instil/recipes/language/cross_tokenizer.yaml"
SMALL = [
    *(
        "data.rows=16",
        "data.held_out=4",
        "data.batch_size=8",
        "data.length=48",
        "data.teacher_length=128",
    ),
    *("data.tokenizer=bpe:300", "teacher.tokenizer=bytes", "teacher.data=null"),
]
SHORT = [*SMALL, "train.epochs=1", "seeds=[0]", "export=false", "baselines=[]"]


def test_teacher_and_student_read_the_same_texts_in_their_own_tokens() -> None:
    experiment = Experiment.from_recipe(recipes.load(RECIPE, SMALL))
    ((stage, scheme, _),) = dry_run(experiment)
    spec = experiment.recipe.teachers[0]
    assert isinstance(experiment.splits.train, AlignedRows)
    assert type(experiment.for_network(spec).splits.train) is TokenRows
    assert experiment.for_network(experiment.recipe.student) is experiment
    assert (experiment.facts["vocabulary"], experiment.for_network(spec).facts["vocabulary"]) == (
        300,
        257,
    )
    batch = next(iter(stage.loader(stage.samples, 0)))
    student, teacher = scheme.student(batch), scheme.teacher_outputs(batch)
    assert student["logits"].shape == (8, 48, 300)
    assert teacher["logits"].shape == (8, 128, 257)
    changed = batch | {"teacher_input_ids": batch["teacher_input_ids"].flip(1)}
    assert torch.equal(scheme.student(changed)["logits"], student["logits"]), (
        "the student reads nothing of the teacher's"
    )
    assert not torch.equal(scheme.teacher_outputs(changed)["logits"], teacher["logits"])


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["gold", "uld", "dskd", "dskd_cma"])
def test_a_run_comes_to_its_end(
    objective: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))
    others = [] if objective == "gold" else ["objectives.gold=null"]
    recipe = recipes.load(RECIPE, [*SHORT, *others, f"objectives.{objective}={{}}"])
    folder = run(recipe, tmp_path / "run", None, Console(quiet=True))
    result = json.loads((folder / "result.json").read_text())
    assert result["status"] == "complete"
    assert "teacher" not in result, "its scores are of other tokens"
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    losses = {
        name for record in records for name in record["losses"] if record["arm"] == "distilled"
    }
    assert f"student/{objective}" in losses
    assert all(
        record["metrics"]["bits_per_byte"] > 0
        for record in records
        if record["arm"] == "teacher" and record.get("metrics")
    )


def test_what_cannot_be_aligned_is_refused() -> None:
    for overrides, words in (
        (
            ["task=classification", "data={name: digits}"],
            "data: 'digits' cannot give the tokens of a second tokenizer. Expected the source "
            "text, or teachers with the tokenizer of the data. Leave teacher.tokenizer out",
        ),
        (
            ["data.teacher_tokenizer=bytes"],
            "data: teacher_tokenizer is not an option of the data. Set teacher.tokenizer",
        ),
        (
            [
                "teacher=[{model: causal_transformer, tokenizer: bytes}, {model: "
                "causal_transformer}]"
            ],
            "data: the teachers have several tokenizers. Expected one for all, got bytes, "
            "the tokenizer of the data",
        ),
    ):
        with pytest.raises(RecipeError, match=words):
            Experiment.from_recipe(recipes.load(RECIPE, overrides))


def test_a_student_cut_from_its_teacher_reads_its_tokens() -> None:
    experiment = Experiment.from_recipe(recipes.load(RECIPE, [*SMALL, "student={model: teacher}"]))
    with pytest.raises(
        RecipeError,
        match=r"student.model: 'teacher' needs a student with the tokens of its teacher\. "
        r"Set data\.tokenizer",
    ):
        list(dry_run(experiment))


def test_the_error_for_a_loss_of_one_tokenizer_names_the_cause() -> None:
    experiment = Experiment.from_recipe(recipes.load(RECIPE, [*SMALL, "objectives.kd={}"]))
    with pytest.raises(
        RecipeError,
        match=r"objectives\.kd: KD compares token by token, but the teacher has its own "
        r"tokenizer\. Use uld, gold, dskd",
    ):
        list(dry_run(experiment))


@pytest.mark.parametrize("name", ["bpe:9", "nothing.json"])
def test_an_error_of_the_tokenizer_names_the_teacher(name: str) -> None:
    with pytest.raises(RecipeError, match=r"^teacher\.tokenizer: .*bpe"):
        Experiment.from_recipe(recipes.load(RECIPE, [*SMALL, f"teacher.tokenizer={name}"]))
