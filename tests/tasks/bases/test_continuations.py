"""What a model writes: after which prompt, how like the answer, and how fast."""

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
from instil.tasks.bases.continuations import exposure_bias_gap
from instil.tasks.bases.peak_memory import PeakMemory
from instil.tasks.language import Language, call
from tests.schemes import texts


class Parrot(nn.Module):
    """Says the letter after the one it reads, and nothing after z."""

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return nn.functional.one_hot(
            torch.where(input_ids == ord("z"), 256, input_ids + 1) % 257, 257
        ).float()


def said(model: nn.Module, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {"logits": model(batch["input_ids"])}


def test_texts_are_gone_on_with_from_their_middle(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.txt").write_text("abcdefgh" * 5)
    metrics, details = Language().evaluate_generation(
        Net(Parrot(), said), text(str(tmp_path), length=16).test
    )
    assert metrics == {}
    first = details["continuations"][0]
    assert first["prompt"] == "abcdefgh"
    assert first["text"].startswith("abcdefgh")
    assert first["generated"].startswith("ijklmnop")
    assert details["written_per_second"] > 0


def test_answers_are_judged_by_what_they_share_with_the_ones_given(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text(
        "\n".join(json.dumps({"prompt": "k k w", "completion": "xy"}) for _ in range(3))
    )
    samples = text(str(path), length=10).test
    metrics, details = Language().evaluate_generation(Net(Parrot(), said), samples)
    one = details["continuations"][0]
    assert (one["prompt"], one["text"]) == ("k k w", "xy")
    assert one["generated"] == "xyz", "and then the end"
    assert metrics == {"rouge_l": 0.0}, "one word, and another"
    path.write_text(
        "\n".join(json.dumps({"prompt": "k k w", "completion": "xyz"}) for _ in range(3))
    )
    assert Language().evaluate_generation(Net(Parrot(), said), text(str(path), length=10).test)[
        0
    ] == {"rouge_l": 1.0}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_memory_is_beyond_the_weights(tmp_path: Path, dtype: torch.dtype) -> None:
    for number in range(3):
        (tmp_path / f"{number}.txt").write_text("abcdefgh" * 5)
    model = causal_transformer(257, length=16, width=64, heads=2).to(dtype)
    _, details = Language().evaluate_generation(
        Net(model, call), text(str(tmp_path), length=16).test
    )
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    assert 257 * 4 < details["writing_bytes"] < weights


def test_the_gap_is_between_own_text_and_given_text() -> None:
    student, teacher, batch = texts.net(seed=1), texts.net(seed=2), texts.prompts()
    own = generate_text(student, batch, texts.END)
    apart = []
    for rows in (own, batch):
        mine, theirs = (
            one(rows)["logits"][rows["valid"]].double().log_softmax(-1)
            for one in (student, teacher)
        )
        apart.append((theirs.exp() * (theirs - mine)).sum(-1).mean().item())
    assert exposure_bias_gap(student, teacher, batch, texts.END) == pytest.approx(
        apart[0] - apart[1], abs=1e-6
    )
    assert exposure_bias_gap(student, student, batch, texts.END) == pytest.approx(0, abs=1e-9)


def test_with_a_teacher_the_gap_is_there(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.txt").write_text("abcdefgh" * 5)
    model, samples = (
        Net(causal_transformer(257, length=16, width=8), call),
        text(str(tmp_path), length=16).test,
    )
    assert Language().evaluate_generation(model, samples, model)[1][
        "exposure_bias_gap"
    ] == pytest.approx(0, abs=1e-9)
    assert "exposure_bias_gap" not in Language().evaluate_generation(model, samples)[1]


def test_the_gap_takes_less_memory_than_the_logits_of_all_rows() -> None:
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
