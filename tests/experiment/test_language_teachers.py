"""Outputs of a language model: of a live teacher, of a store, and in other tokens."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from instil.experiment.dry_run import dry_run
from instil.experiment.experiment import Experiment
from instil.plan import teacher_training
from instil.plan.recording import record_outputs
from instil.plan.run_folder import RunFolder
from instil.plan.runner import Runner
from instil.recipe.errors import RecipeError
from instil.recipe.sections import Recipe
from tests.experiment.small import among_texts, lines, recipe, run_of

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
    "teacher": {
        "model": "causal_transformer",
        "options": {"width": 16, "depth": 3},
        "is_trained": True,
    },
    "student": {"model": "causal_transformer", "options": {"width": 8, "depth": 1}},
    "objectives": {"forward_kl": {}},
    "train": {"epochs": 2, "optimizer": {"lr": 1e-2}},
    "seeds": [0],
    "baselines": [],
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    among_texts(tmp_path, monkeypatch)
    return tmp_path


def spoken(*changes: str, **sections: Any) -> Recipe:
    return recipe(*changes, **SPOKEN | sections)


def test_a_teacher_that_is_not_trained_is_loaded_once_and_let_go(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []
    monkeypatch.setattr(
        teacher_training,
        "build_teacher",
        lambda *args, build=teacher_training.build_teacher: loaded.append(1) or build(*args),
    )
    experiment = Experiment.from_recipe(
        spoken(student={"model": "teacher", "changes": {"lora": {"rank": 2}}})
    )
    runner = Runner(experiment, RunFolder(here / "run"), lambda *_: None)
    teacher = runner.teacher()
    students = [runner.students.exported(seed) for seed in (0, 1, 0)]
    assert len(loaded) == 1
    assert len(runner.teachers._ready_nets) == 1
    weights = [
        {name: one for name, one in student.named_parameters() if "lora_A" in name}
        for student in students
    ]
    assert all(torch.equal(one, weights[2][name]) for name, one in weights[0].items())
    assert not any(torch.equal(one, weights[1][name]) for name, one in weights[0].items()), (
        "what is drawn is the seed's, not the teacher's"
    )
    del teacher, students
    runner._teacher = None
    runner.scores.teacher = None
    runner.evaluator.teacher_outputs.clear()
    gc.collect()
    assert len(runner.teachers._ready_nets) == 0, "it may be large"


def losses(one: Recipe, out: Path) -> list[dict[str, float]]:
    run_of(one, out)
    return [line["losses"] for line in lines(out) if line["arm"] == "distilled"]


STATES = {"forward_kl": {}, "distilbert": {"layers": [[1, 2]]}}
OTHER_TOKENS = {
    "model": "causal_transformer",
    "options": {"width": 16, "depth": 2},
    "is_trained": True,
    "tokenizer": "bpe:260",
}


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {
            "objectives": STATES,
            "student": {"model": "teacher", "changes": {"depth": {"layers": 2}}},
        },
        {"teacher": OTHER_TOKENS, "objectives": {"gold": {}}},
        {"teacher": OTHER_TOKENS, "objectives": {"dskd_cma": {}}},
    ],
    ids=[
        "hidden and head",
        "states, to a part of the teacher",
        "other tokens",
        "other tokens, hidden states",
    ],
)
def test_losses_from_a_store_are_those_of_the_live_teacher_to_the_last_bit(
    sections: dict[str, Any], here: Path
) -> None:
    stored = spoken("store.path=store", **sections)
    record_outputs(stored, Console(quiet=True))
    assert losses(stored, here / "recorded") == losses(spoken(**sections), here / "live")


@pytest.mark.parametrize(
    ("codec", "objective"), [("float16", "forward_kl"), ("top", "top_k"), ("sampled", "sampled_kd")]
)
def test_every_codec_teaches_what_the_live_teacher_does(
    codec: str, objective: str, here: Path
) -> None:
    changes = ("store.path=store", f"store.codec={codec}", "store.size=100", "train.epochs=8")
    options = (
        {"k": 100} if objective == "top_k" else {"draws": 100} if objective == "sampled_kd" else {}
    )
    goals = {
        "objectives": {objective: options},
        "teacher": {"model": "causal_transformer", "options": {"width": 16, "depth": 2}},
    }
    record_outputs(spoken(*changes, **goals), Console(quiet=True))
    live, stored = (
        losses(spoken("train.epochs=8", **goals), here / "live"),
        losses(spoken(*changes, **goals), here / "recorded"),
    )
    allowed = {"float16": 1e-4, "top": 1e-5, "sampled": 0.1}[codec]
    assert all(
        one == pytest.approx(two, rel=allowed) for one, two in zip(live, stored, strict=True)
    )


def test_what_a_store_of_texts_does_not_hold_is_refused(here: Path) -> None:
    with pytest.raises(
        RecipeError,
        match=r"store\.codec: objectives\.forward_kl reads all logits of the teacher, and 'top' "
        r"records some classes only\. .* or use the objective top_k or top_k_ranking$",
    ):
        record_outputs(spoken("store.path=none", "store.codec=top"), Console(quiet=True))
    assert not (here / "none").exists(), "before any request"
    record_outputs(spoken("store.path=store"), Console(quiet=True))

    def refused(message: str, *changes: str, **sections: Any) -> None:
        with pytest.raises(RecipeError, match=message):
            list(dry_run(Experiment.from_recipe(spoken("store.path=store", *changes, **sections))))

    refused(
        "DistilBERT needs hidden_states of the teacher, which outputs projection; the store "
        "does not hold it: record again",
        objectives=STATES,
    )
    refused(
        r"teacher\.tokenizer was null and is \"bpe:260\"",
        teacher=OTHER_TOKENS,
        objectives={"gold": {}},
    )
    refused("data.length was 16 and is 12", "data.length=12")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            ("scheme=on_policy",),
            "store: the scheme on_policy needs teacher outputs for texts that are generated "
            "during training",
        ),
        (
            ("stages=[{objectives: {forward_kl: {}}}]",),
            "store: recorded outputs belong to one teacher .* Leave stages out",
        ),
        (
            ("teacher=null", "objectives={cross_entropy: {}}"),
            "teacher: missing. Expected the teacher whose outputs are recorded",
        ),
    ],
)
def test_what_cannot_be_learned_from_is_not_recorded(
    changes: tuple[str, ...], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        record_outputs(spoken("store.path=store", *changes), Console(quiet=True))
