"""Where the answers of a language model come from: a live teacher, loaded once; a store, in whatever codec; one with other tokens."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest
import torch

from instil.experiment import arms, build
from instil.experiment.arms import Arms
from instil.experiment.folder import RunFolder
from instil.recipe.sections import Recipe
from tests.experiment.small import recipe

SPOKEN: dict[str, Any] = {
    "task": "language",
    "data": {"name": "text", "path": "texts", "length": 16, "rows": 16, "held_out": 4, "batch_size": 8},
    "teacher": {"model": "causal_transformer", "options": {"width": 16, "depth": 3}, "trained": True},
    "student": {"model": "causal_transformer", "options": {"width": 8, "depth": 1}},
    "objectives": {"forward_kl": {}},
    "train": {"epochs": 2, "optimizer": {"lr": 1e-2}},
    "seeds": [0],
    "baselines": [],
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts").mkdir()
    for number in range(10):
        (tmp_path / "texts" / f"{number}.txt").write_text(f"{number}: the quick brown fox jumps over the lazy dog. " * 4)
    return tmp_path


def spoken(*changes: str, **sections: Any) -> Recipe:
    return recipe(*changes, **SPOKEN | sections)


def test_a_teacher_that_is_not_trained_is_loaded_once_and_let_go(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []
    monkeypatch.setattr(arms, "untrained", lambda *given, make=arms.untrained: loaded.append(1) or make(*given))
    bench = build.bench(spoken(student={"model": "teacher", "changes": {"lora": {"rank": 2}}}))
    made = Arms(bench, RunFolder(here / "run"), lambda *_: None)
    teacher = made.teacher()
    students = [made._new_student(seed) for seed in (0, 1, 0)]
    assert len(loaded) == 1
    assert len(made._ready) == 1
    weights = [{name: one for name, one in student.named_parameters() if "lora_A" in name} for student in students]
    assert all(torch.equal(one, weights[2][name]) for name, one in weights[0].items())
    assert not any(torch.equal(one, weights[1][name]) for name, one in weights[0].items()), "what is drawn is the seed's, not the teacher's"
    del teacher, students
    made._teacher, made._remembered = None, {}
    gc.collect()
    assert len(made._ready) == 0, "it may be large"
