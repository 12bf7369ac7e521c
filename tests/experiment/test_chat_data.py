"""Training on conversations: padding, packing, recorded teachers, and messages in the result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from instil.experiment.experiment import Experiment
from instil.experiment.sample_digest import sample_digest
from instil.plan.doctor import doctor
from instil.plan.recording import record_outputs
from instil.recipe.errors import RecipeError
from instil.recipe.sections import Recipe
from tests.data.chat_files import conversations, tokenizer_folder, turns, write_jsonl
from tests.experiment.small import lines, recipe, run_of

SECTIONS: dict[str, Any] = {
    "task": "language",
    "teacher": {"model": "causal_transformer", "options": {"width": 16, "depth": 1}},
    "student": {"model": "causal_transformer", "options": {"width": 8, "depth": 1}},
    "objectives": {"forward_kl": {}, "cross_entropy": {}},
    "train": {"epochs": 1, "optimizer": {"lr": 1e-2}},
    "teacher_train": {"epochs": 1},
    "seeds": [0],
    "baselines": [],
    "export": False,
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    tokenizer_folder(tmp_path / "tokenizer")
    rows = [*conversations(24), {"messages": turns("the fox?", "")}]
    write_jsonl(tmp_path / "chat.jsonl", rows)
    # More than one batch of evaluation, with different widths.
    write_jsonl(tmp_path / "held_out.jsonl", conversations(19)[::-1])
    return tmp_path


def chat_recipe(*changes: str, **data: Any) -> Recipe:
    files = {"train": "chat.jsonl", "validation": "held_out.jsonl"}
    source = {"name": "chat", "files": files, "tokenizer": "tokenizer", "length": 96}
    return recipe(*changes, **SECTIONS, data={**source, "batch_size": 4, **data})


def losses(out: Path) -> list[float]:
    """Mean losses of each epoch."""
    values: list[float] = []
    for line in lines(out):
        if line["arm"] == "distilled":
            values += line["losses"].values()
    return values


def test_recorded_and_precomputed_teachers_give_the_losses_of_the_live_one(folder: Path) -> None:
    result = run_of(chat_recipe(), folder / "live")
    assert result["distilled"]["perplexity"]["mean"] > 1
    assert any("1 of 25 rows have an empty answer" in line for line in result["warnings"])
    assert "rouge_l" in result["distilled"], "answers follow prompts"
    store = record_outputs(chat_recipe("store.path=store"), Console(quiet=True))
    run_of(chat_recipe(f"store.path={store}"), folder / "recorded")
    run_of(chat_recipe("teacher.precompute=true"), folder / "precomputed")
    for name in ("recorded", "precomputed"):
        assert losses(folder / name) == pytest.approx(losses(folder / "live"), rel=1e-5)


def test_packed_rows_and_length_buckets_are_trained(folder: Path) -> None:
    result = run_of(chat_recipe(packing=True, length=192), folder / "packed")
    assert result["distilled"]["perplexity"]["mean"] > 1
    plain = Experiment.from_recipe(chat_recipe(length=192)).splits.train
    packed = Experiment.from_recipe(chat_recipe(packing=True, length=192)).splits.train
    assert len(packed) < len(plain) / 2
    digests = {sample_digest(plain), sample_digest(packed)}
    assert len(digests) == 2
    bucketed = run_of(chat_recipe("data.workers=1", sampler="length_buckets"), folder / "buckets")
    assert bucketed["distilled"]["perplexity"]["mean"] > 1


def test_generated_texts_have_the_room_of_a_row(folder: Path) -> None:
    writing = {"type": "on_policy", "share": 1.0, "sampling": {"max_new_tokens": 4}}
    changes = (f"scheme={json.dumps(writing)}", "objectives={reverse_kl: {}}")
    experiment = Experiment.from_recipe(chat_recipe(*changes))
    assert experiment.splits.train[0]["input_ids"].shape == (96,)
    run_of(chat_recipe(*changes), folder / "on_policy")
    with pytest.raises(RecipeError, match=r"data.packing: the scheme on_policy generates text"):
        doctor(chat_recipe(*changes, packing=True))


def test_errors_of_rows_have_the_path_of_the_recipe(folder: Path) -> None:
    with pytest.raises(
        RecipeError, match=r"data.*length: \d+ of 22 texts are longer than a row of 16"
    ):
        Experiment.from_recipe(chat_recipe(length=16))
    write_jsonl(folder / "chat.jsonl", [{"messages": [{"role": "bot", "content": ""}]}])
    with pytest.raises(RecipeError, match=r"data.*chat.jsonl, line 1: message 0 has the unknown"):
        Experiment.from_recipe(chat_recipe())


def test_truncation_is_in_the_result(folder: Path) -> None:
    result = run_of(chat_recipe(length=32, truncation="right"), folder / "run")
    warnings = " ".join(result["warnings"])
    assert "texts are longer than 32 tokens and lost their end" in warnings
