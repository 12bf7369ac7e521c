"""Generated texts: prompts, similarity to the answers, speed and memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from instil.core import Net
from instil.data.sources.text import text
from instil.generation.rollout import generate_text
from instil.networks.causal_transformer import causal_transformer
from instil.tasks.bases.continuations import exposure_bias_gap, rouge
from instil.tasks.bases.peak_memory import PeakMemory
from instil.tasks.language import Language, call
from tests.schemes import texts


class Parrot(nn.Module):
    """Predict the next letter of the alphabet, and the end after z."""

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return nn.functional.one_hot(
            torch.where(input_ids == ord("z"), 256, input_ids + 1) % 257, 257
        ).float()


def call_parrot(model: nn.Module, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {"logits": model(batch["input_ids"])}


def test_texts_are_continued_from_their_middle(tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / f"{i}.txt").write_text("abcdefgh" * 5)
    metrics, details = Language().evaluate_generation(
        Net(Parrot(), call_parrot), text(str(tmp_path), length=16).test
    )
    assert metrics == {}
    first = details["continuations"][0]
    assert first["prompt"] == "abcdefgh"
    assert first["text"].startswith("abcdefgh")
    assert first["generated"].startswith("ijklmnop")
    assert details["written_per_second"] > 0


def test_rouge_compares_generated_with_expected_answers(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text(
        "\n".join(json.dumps({"prompt": "k k w", "completion": "xy"}) for _ in range(3))
    )
    samples = text(str(path), length=10).test
    metrics, details = Language().evaluate_generation(Net(Parrot(), call_parrot), samples)
    one = details["continuations"][0]
    assert (one["prompt"], one["text"]) == ("k k w", "xy")
    assert one["generated"] == "xyz", "z is followed by the end"
    assert metrics == {"rouge_l": 0.0}, "the words differ"
    path.write_text(
        "\n".join(json.dumps({"prompt": "k k w", "completion": "xyz"}) for _ in range(3))
    )
    assert Language().evaluate_generation(
        Net(Parrot(), call_parrot), text(str(path), length=10).test
    )[0] == {"rouge_l": 1.0}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_writing_memory_excludes_the_weights(tmp_path: Path, dtype: torch.dtype) -> None:
    for i in range(3):
        (tmp_path / f"{i}.txt").write_text("abcdefgh" * 5)
    model = causal_transformer(257, length=16, width=64, heads=2).to(dtype)
    _, details = Language().evaluate_generation(
        Net(model, call), text(str(tmp_path), length=16).test
    )
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    assert 257 * 4 < details["writing_bytes"] < weights


@pytest.mark.parametrize(
    ("generated", "expected", "score"),
    [
        ("The cat_sat!", "the cat sat", 1.0),
        ("кот на окне", "кот у окна", 1 / 3),
        ("你好世界", "你好", 2 / 3),
        ("café", "cafe", 0.0),
    ],
)
def test_rouge_reads_words_of_all_scripts(generated: str, expected: str, score: float) -> None:
    rows = [{"generated": generated, "text": expected}]
    assert rouge(rows) == pytest.approx(score)


def test_exposure_bias_gap_equals_a_direct_computation() -> None:
    student, teacher, batch = texts.net(seed=1), texts.net(seed=2), texts.prompts()
    own = generate_text(student, batch, texts.END)
    divergences = []
    for rows in (own, batch):
        student_log_probs, teacher_log_probs = (
            one(rows)["logits"][rows["valid"]].double().log_softmax(-1)
            for one in (student, teacher)
        )
        divergences.append(
            (teacher_log_probs.exp() * (teacher_log_probs - student_log_probs))
            .sum(-1)
            .mean()
            .item()
        )
    assert exposure_bias_gap(student, teacher, batch, texts.END) == pytest.approx(
        divergences[0] - divergences[1], abs=1e-6
    )
    assert exposure_bias_gap(student, student, batch, texts.END) == pytest.approx(0, abs=1e-9)


def test_the_gap_is_reported_only_with_a_teacher(tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / f"{i}.txt").write_text("abcdefgh" * 5)
    model, samples = (
        Net(causal_transformer(257, length=16, width=8), call),
        text(str(tmp_path), length=16).test,
    )
    assert Language().evaluate_generation(model, samples, model)[1][
        "exposure_bias_gap"
    ] == pytest.approx(0, abs=1e-9)
    assert "exposure_bias_gap" not in Language().evaluate_generation(model, samples)[1]


def test_the_gap_needs_less_memory_than_the_logits_of_all_rows() -> None:
    vocabulary, rows, length = 1000, 16, 16
    student, teacher = (
        Net(causal_transformer(vocabulary, length=length, width=8), call) for _ in range(2)
    )
    batch = {
        "input_ids": torch.arange(rows * length).view(rows, length),
        "attention_mask": torch.ones(rows, length, dtype=torch.int64),
        "valid": torch.arange(length).expand(rows, -1) >= 1,
        "index": torch.arange(rows),
    }
    with PeakMemory() as memory:
        exposure_bias_gap(student, teacher, batch, end=None)
    assert memory.peak < 4 * rows * length * vocabulary
