"""Correct answers of language models: the most likely one, and sampled ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from instil.core import Net
from instil.data.sources.text import text
from instil.data.token_rows import TokenRows
from instil.data.verifiers import Verifier
from instil.experiment.experiment import Experiment
from instil.recipe import build
from instil.recipe.errors import RecipeError
from instil.tasks.bases.verified_answers import verified_answers
from instil.tasks.language import Language

WRONG = 200
"""Token that no answer has."""


class Counter(nn.Module):
    """Predict the next character with a probability, else a wrong token, and the end after 9."""

    def __init__(self, probability: float):
        super().__init__()
        self.probability = probability

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        following = torch.where(input_ids == ord("9"), 256, input_ids + 1) % 257
        probability = nn.functional.one_hot(following, 257) * self.probability
        probability[..., WRONG] += 1 - self.probability
        return probability.clamp_min(1e-30).log()


def counter(probability: float) -> Net:
    def call(model: nn.Module, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        return {"logits": model(batch["input_ids"])}

    return Net(Counter(probability), call)


def rows(folder: Path, verifier: Verifier | None) -> TokenRows:
    """Return test rows with prompts that end with 7, and answers that are 89 mostly."""
    lines = [
        {"prompt": f"{'x' * (i % 3)}7", "completion": "89" if i % 4 else "88"} for i in range(400)
    ]
    path = folder / "answers.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    samples = text(str(path), length=8, verifier=verifier).test
    assert isinstance(samples, TokenRows)
    return samples


def test_sampled_answers_are_correct_with_the_probability_of_their_tokens(tmp_path: Path) -> None:
    samples = rows(tmp_path, Verifier("exact_match", samples=8, rows=30))
    share = (samples.label[:30] == ord("9")).any(1).double().mean().item()
    certain = verified_answers(counter(1.0), samples)
    assert certain == pytest.approx(dict.fromkeys(certain, share))
    assert list(certain) == ["solved", "pass_at_1", "pass_at_2", "pass_at_4", "pass_at_8"]
    unsure = verified_answers(counter(0.6), samples)
    assert unsure["solved"] == pytest.approx(share)
    # The answer has two tokens and the end.
    for k in (1, 2, 4):
        expected = share * (1 - (1 - 0.6**3) ** k)
        assert unsure[f"pass_at_{k}"] == pytest.approx(expected, abs=0.1)


def test_the_metrics_are_part_of_the_evaluation_of_generated_texts(tmp_path: Path) -> None:
    task = Language()
    metrics, _ = task.evaluate_generation(counter(1.0), rows(tmp_path, Verifier()))
    assert set(metrics) == {"rouge_l", "solved"}
    assert task.evaluate_answers(counter(1.0), rows(tmp_path, Verifier())) == {
        "solved": metrics["solved"]
    }
    assert task.evaluate_answers(counter(1.0), rows(tmp_path, None)) == {}


def test_texts_without_prompts_have_no_verifier(tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / f"{i}.txt").write_text("abcdefgh" * 5)
    with pytest.raises(ValueError, match="verifier: the texts have no prompts"):
        text(str(tmp_path), length=16, verifier=Verifier())


def recipe(**changes: Any) -> Any:
    return build(
        {
            "task": "language",
            "data": {"name": "arithmetic", "digits": 2, "rows": 8, "held_out": 4},
            "student": {"model": "causal_transformer", "options": {"width": 8, "depth": 1}},
            "objectives": {"cross_entropy": {}},
            "headline": "solved",
        }
        | changes
    )


def test_the_share_of_correct_answers_may_be_the_headline() -> None:
    assert Experiment.from_recipe(recipe()).task.higher_is_better
    data = {"name": "arithmetic", "digits": 2, "rows": 8, "held_out": 4, "verifier": None}
    with pytest.raises(RecipeError, match=r"headline: solved .* Set data\.verifier"):
        Experiment.from_recipe(recipe(data=data))


def test_a_verifier_of_the_user(tmp_path: Path) -> None:
    class EndsWithNine(Verifier):
        """Accept every answer that ends with 9."""

        def accepts(self, answer: str, reference: str) -> bool:
            return answer.endswith("9")

    samples = rows(tmp_path, None)
    samples.verifier = EndsWithNine()
    assert verified_answers(counter(1.0), samples) == {"solved": 1.0}
