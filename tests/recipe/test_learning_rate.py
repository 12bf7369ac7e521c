"""The default learning rate depends on the initial weights of the student."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

from instil.files.gguf_header import gguf_num_layers
from instil.recipe import build, load, to_yaml
from instil.recipe.learning_rate import learning_rate_note

GGUF = {"model": "gguf", "options": {"file": "a.gguf"}}
READY = GGUF | {"is_trained": True}
THIRTY = {"model": "causal_transformer", "options": {"depth": 30}, "is_trained": True}
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
        (
            {"model": "teacher", "changes": {"depth": {"layers": [0, 9, 29]}}},
            {"teacher": READY},
            1e-3,
        ),
        (
            {"model": "teacher", "changes": {"depth": {"layers": list(range(29))}}},
            {"teacher": READY},
            2e-5,
        ),
        (
            {"model": "teacher", "changes": {"depth": {"layers": [0, 1, 2, 4, 5]}}},
            {"teacher": READY},
            1e-4,
        ),
        ({"model": "teacher", "changes": {"depth": {"layers": 29}}}, {"teacher": THIRTY}, 1e-4),
        ({"model": "teacher", "changes": {"depth": {"layers": 4}}}, {"teacher": THIRTY}, 1e-3),
        (
            {"model": "teacher", "changes": {"depth": {"layers": 29}, "lora": {"rank": 4}}},
            {"teacher": THIRTY},
            2e-4,
        ),
        ({"model": "teacher", "changes": {"width": {"share": 0.9}}}, {"teacher": READY}, 1e-3),
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


def gguf_file(path: Path, num_layers: int, kind: int = 4) -> Path:
    """Write a file with the beginning of a GGUF file."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    entries = [
        text("general.architecture") + struct.pack("<I", 8) + text("llama"),
        text("general.flag") + struct.pack("<IB", 7, 1),
        text("llama.block_count") + struct.pack("<II", kind, num_layers),
        text("tokens") + struct.pack("<IIQ", 9, 8, 0),
    ]
    path.write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, 0, len(entries)) + b"".join(entries))
    return path


def test_the_number_of_layers_is_read_from_a_gguf_file(tmp_path: Path) -> None:
    path = gguf_file(tmp_path / "a.gguf", 30)
    assert gguf_num_layers(path) == 30
    content = path.read_bytes()
    for length in range(0, len(content) - 24, 7):
        path.write_bytes(content[:length])
        assert gguf_num_layers(path) in (None, 30)
    path.write_bytes(b"none")
    assert gguf_num_layers(path) is None
    assert gguf_num_layers(tmp_path / "missing") is None
    gguf_file(path, 30)
    student = {"model": "gguf", "options": {"file": str(path)}}
    assert rate(student | {"changes": {"depth": {"layers": 29}}}) == 1e-4
    assert rate(student | {"changes": {"depth": {"layers": 4}}}) == 1e-3


@pytest.mark.parametrize(
    ("student", "train", "expected"),
    [
        (GGUF, {}, "2e-05 (adamw), because the student starts from trained weights and keeps all"),
        (GGUF, {"optimizer": {"lr": 1e-3}}, "as the recipe sets it. The default would be 2e-05"),
        (GGUF, {"optimizer": {"type": "sgd"}}, "0.001 (sgd), the general default. The student"),
        ({"model": "causal_transformer"}, {}, "0.001 (adamw), the general default. train"),
        ({"model": "causal_transformer"}, {"optimizer": {"lr": 0.5}}, "0.5 (adamw), as the recipe"),
    ],
)
def test_the_note_gives_the_reason(
    student: dict[str, Any], train: dict[str, Any], expected: str
) -> None:
    note = learning_rate_note(build(BASE | {"student": student, "train": train}))
    assert note.startswith("Learning rate of the student: ")
    assert expected in note
