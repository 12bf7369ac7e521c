"""The default learning rate depends on what the student starts from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from instil.recipe import build, load, to_yaml

GGUF = {"model": "gguf", "options": {"file": "a.gguf"}}
READY = GGUF | {"trained": True}
BASE: dict[str, Any] = {
    "task": "language",
    "data": {"name": "text"},
    "objectives": {"cross_entropy": {}},
}


def rate(student: dict[str, Any], **sections: Any) -> float:
    return build(BASE | {"student": student} | sections).train.optimizer.lr


@pytest.mark.parametrize(
    ("student", "sections", "expected"),
    [
        (GGUF, {}, 2e-5),
        (GGUF | {"changes": {"lora": {"rank": 4}}}, {}, 2e-4),
        ({"model": "teacher"}, {"teacher": READY}, 2e-5),
        ({"model": "teacher", "changes": {"quantized": {"bits": 8}}}, {"teacher": READY}, 2e-5),
        ({"model": "teacher", "changes": {"depth": {"layers": 4}}}, {"teacher": READY}, 1e-3),
        ({"model": "teacher"}, {"teacher": {"model": "causal_transformer"}}, 1e-3),
        ({"model": "causal_transformer"}, {}, 1e-3),
        ({"model": "causal_transformer", "weights": "a.safetensors"}, {}, 2e-5),
        (GGUF, {"train": {"optimizer": {"lr": 1e-3}}}, 1e-3),
        (GGUF, {"train": {"optimizer": {"weight_decay": 0.1}}}, 2e-5),
        (GGUF, {"train": {"optimizer": {"type": "sgd"}}}, 1e-3),
    ],
)
def test_what_starts_from_trained_weights_learns_slowly(
    student: dict[str, Any], sections: dict[str, Any], expected: float
) -> None:
    assert rate(student, **sections) == expected


def test_a_teacher_that_is_trained_first_keeps_the_general_rate(tmp_path: Path) -> None:
    teacher = {"model": "causal_transformer"}
    recipe = build(BASE | {"student": GGUF, "teacher": teacher, "objectives": {"forward_kl": {}}})
    assert recipe.train.optimizer.lr == 2e-5
    assert recipe.teacher_train is not None
    assert recipe.teacher_train.optimizer.lr == 1e-3
    (tmp_path / "recipe.yaml").write_text(to_yaml(recipe))
    again = load(tmp_path / "recipe.yaml")
    assert again.train == recipe.train
    assert again.teacher_train == recipe.teacher_train
