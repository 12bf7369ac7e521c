"""Language models that cannot be distilled raise an error with a recipe path before training."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from instil.experiment.dry_run import dry_run
from instil.experiment.experiment import Experiment
from instil.experiment.trained_teachers import load_if_trained
from instil.recipe.errors import RecipeError
from tests.experiment.small import among_texts
from tests.experiment.test_language_teachers import spoken

pytest.importorskip("transformers")
MODULE = """
import transformers

SIZES = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}


def llama(vocabulary: int, tokens: int = 0, **facts):
    config = transformers.LlamaConfig(vocab_size=tokens or vocabulary, **SIZES)
    return transformers.LlamaForCausalLM(config)


def bert(vocabulary: int, **facts):
    return transformers.BertForMaskedLM(transformers.BertConfig(vocab_size=vocabulary, **SIZES))


def t5(vocabulary: int, **facts):
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    config = transformers.T5Config(vocab_size=vocabulary, **sizes)
    return transformers.T5ForConditionalGeneration(config)
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    among_texts(tmp_path, monkeypatch)
    (tmp_path / "their_models.py").write_text(MODULE)
    yield tmp_path
    sys.modules.pop("their_models", None)


def model(name: str, **options: Any) -> dict[str, Any]:
    return {"model": f"their_models:{name}", "options": options}


LLAMA = model("llama")
TEACHER = LLAMA | {"is_trained": True}


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"student": model("bert")}, r"student: BertForMaskedLM: the logits of a position depend"),
        (
            {"teacher": model("bert") | {"is_trained": True}},
            r"teacher: BertForMaskedLM: the logits of a position depend",
        ),
        ({"student": model("t5")}, r"student: T5ForConditionalGeneration is an encoder-decoder"),
        (
            {"student": model("llama", tokens=100)},
            r"student: its vocabulary has 100 tokens, the tokenizer of the data has 257",
        ),
        (
            {"teacher": model("llama", tokens=100) | {"is_trained": True}},
            r"teacher: its vocabulary has 100 tokens, the tokenizer of the data has 257",
        ),
        (
            {"scheme": {"type": "on_policy", "sampling": {"eos_token_id": 9999}}},
            r"scheme\.sampling\.eos_token_id: there is no such token\. Expected a token from "
            r"0 to 256, got 9999",
        ),
        (
            {
                "teacher": TEACHER | {"tokenizer": "bpe:260"},
                "objectives": {"gold": {}},
                "scheme": {"type": "minillm"},
            },
            r"teacher\.tokenizer: the scheme minillm writes text in the student's tokens",
        ),
    ],
    ids=["encoder", "encoder teacher", "t5", "few tokens", "few teacher tokens", "end", "tokens"],
)
def test_what_cannot_be_distilled_is_refused(sections: dict[str, Any], message: str) -> None:
    recipe = spoken(**{"student": LLAMA, "teacher": TEACHER} | sections)
    with pytest.raises(RecipeError, match=message):
        list(dry_run(Experiment.from_recipe(recipe), load_if_trained))


def test_a_padded_teacher_writes_the_tokens_of_the_data_alone() -> None:
    recipe = spoken(
        student=LLAMA,
        teacher=model("llama", tokens=300) | {"is_trained": True},
        objectives={"reverse_kl": {"vocabulary": 257}},
        scheme={"type": "minillm"},
    )
    ((_, scheme, _),) = dry_run(Experiment.from_recipe(recipe), load_if_trained)
    assert scheme.vocabulary == 257
