"""A language model behind an API as the teacher of a text classifier."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from instil.plan.doctor import doctor
from instil.plan.recording import record_outputs
from instil.recipe.errors import RecipeError
from instil.recipe.sections import Recipe
from instil.remote.label_probs import label_probabilities
from tests.experiment.small import numbers, recipe, run_of
from tests.remote.stub import Stub, stub

CLASSES = ("cold", "warm", "hot")
SAMPLES = 60


def answer(path: str, body: dict[str, Any]) -> Any:
    """Return a chat completion whose first token is likely the word of the prompt."""
    assert path == "/v1/chat/completions"
    assert (body["max_tokens"], body["logprobs"], body["top_logprobs"]) == (1, True, 20)
    text = body["messages"][-1]["content"]
    word = next(name for name in CLASSES if f"it is {name}" in text)
    tokens = [(word[:2].title(), 0.6), (f" {word}", 0.3), ("The", 0.06)]
    entries = [{"token": token, "logprob": math.log(share)} for token, share in tokens]
    choice = {"message": {"content": word}, "logprobs": {"content": [{"top_logprobs": entries}]}}
    return {"choices": [choice], "usage": {"total_tokens": 12}}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    """A server, and samples with their texts in the working directory."""
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    label = np.arange(SAMPLES) % 3
    image = np.full((SAMPLES, 4, 4), 0.3) * label[:, None, None]
    np.savez("weather.npz", image=image.astype("float32"), label=label, classes=CLASSES)
    texts = [{"key": row, "text": f"day {row}: it is {CLASSES[row % 3]}"} for row in range(SAMPLES)]
    Path("texts.jsonl").write_text("".join(f"{json.dumps(text)}\n" for text in texts))
    with stub() as running:
        running.kinds["text"] = answer
        yield running


def taught(server: Stub, *changes: str, **options: Any) -> Recipe:
    teacher = {
        "model": "api:teacher",
        "options": {"url": server.url, "texts": "texts.jsonl", "prompt": "How is it? {text}"}
        | options,
    }
    sections: dict[str, Any] = {
        "data": {"name": "npz:weather.npz", "batch_size": 20},
        "teacher": teacher,
        "seeds": [0],
    }
    return recipe("baselines=[alone, pseudo_labels]", *changes, **sections)


def test_an_api_teaches_and_is_asked_once_per_text(server: Stub, tmp_path: Path) -> None:
    result = run_of(taught(server), tmp_path / "first")
    assert result["teacher"]["accuracy"]["mean"] == 1.0
    assert "pseudo_labels" in result
    assert len(server.answered) == SAMPLES
    again = run_of(taught(server), tmp_path / "second")
    assert numbers(again) == numbers(result)
    assert sum(server.answered.values()) == SAMPLES, "the second run reads the log"
    assert doctor(taught(server))["stages"][0]["match"]["teacher_accuracy"] == 1.0


def test_recorded_answers_equal_the_live_ones(server: Stub, tmp_path: Path) -> None:
    live = run_of(taught(server), tmp_path / "live")
    stored = taught(server, "store.path=store")
    record_outputs(stored, Console(quiet=True))
    assert numbers(run_of(stored, tmp_path / "run")) == numbers(live)
    lines = Path("texts.jsonl").read_text().splitlines()
    Path("texts.jsonl").write_text("\n".join(lines[::-1]))
    with pytest.raises(RecipeError, match=r"store.path: .*code"):
        run_of(stored, tmp_path / "other")


def test_probabilities_of_labels_sum_over_their_tokens() -> None:
    tokens = [("Co", math.log(0.6)), (" cold", math.log(0.2)), ("hot", math.log(0.1))]
    probabilities = label_probabilities(tokens, CLASSES)
    assert probabilities[0] == pytest.approx(0.8 / 0.9, abs=1e-5)
    assert probabilities[1] == pytest.approx(1e-6 / 0.9, rel=1e-3)
    assert sum(probabilities) == pytest.approx(1)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([("ca", -0.1)], "token 'ca' begins both 'cat' and 'car'"),
        ([("I", -0.1), ("cat", -9.0)], "other tokens: 'I', 'cat'. Expected one of cat, car"),
    ],
)
def test_labels_that_do_not_fit(tokens: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        label_probabilities(tokens, ("cat", "car"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"promt": "x"}, r"teacher.options.promt: .*Did you mean prompt"),
        ({"prompt": "How is it?"}, "prompt: expected a text with {text}"),
        ({"labels": ["yes", "no"]}, "labels: expected one word for each of the 3 classes, got 2"),
        ({"labels": ["yes", "no", "maybe"]}, "labels: the model answers with other tokens"),
        ({"texts": "text.jsonl"}, "texts: there is no file"),
        ({"url": "http://127.0.0.1:9/v1", "retries": 0}, "127.0.0.1:9"),
    ],
)
def test_wrong_options(server: Stub, options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        doctor(taught(server, **options))
    assert str(caught.value).startswith("teacher")


def test_texts_of_other_samples_and_servers_without_log_probabilities(server: Stub) -> None:
    lines = Path("texts.jsonl").read_text().splitlines()
    Path("texts.jsonl").write_text("\n".join(lines[5:]))
    with pytest.raises(RecipeError, match=r"samples have no text, such as '\d'"):
        doctor(taught(server))
    Path("texts.jsonl").write_text("\n".join([*lines, lines[0]]))
    with pytest.raises(RecipeError, match="has the key '0' twice"):
        doctor(taught(server))
    Path("texts.jsonl").write_text("\n".join(lines))
    server.kinds["text"] = lambda path, body: {"choices": [{"message": {"content": "cold"}}]}
    with pytest.raises(RecipeError, match="no log-probabilities of its first token"):
        doctor(taught(server))
