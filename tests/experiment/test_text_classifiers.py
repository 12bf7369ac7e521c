"""Text classifiers of transformers: their classes, their tokens, and the exported tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from instil.core import Net
from instil.data.pair_tokenizers import tokenizer_of_samples
from instil.data.sources.texts import texts
from instil.experiment.dry_run import dry_run
from instil.experiment.experiment import Experiment
from instil.export.transformers import to_transformers
from instil.recipe import RecipeError, build
from instil.tasks.text_classification import TextClassification
from tests.data.small_tokenizer import folder_of

NAMES = {"bad": "the dog", "good": "the fox", "None": "over"}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with texts of three classes and a tokenizer that begins texts with <s>."""
    pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))
    rows = [f"{text} {i},{name}" for i in range(8) for name, text in NAMES.items()]
    (tmp_path / "all.csv").write_text("\n".join(["text,label", *rows]))
    folder_of(tmp_path / "model", ["<s>", "</s>", "<pad>"], "<s>")
    return tmp_path


def classifier(*names: str, **changed: Any) -> Any:
    """A random model whose configuration names its classes."""
    import transformers

    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    special = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    config = transformers.RobertaConfig(
        vocab_size=300,
        intermediate_size=8,
        max_position_embeddings=40,
        id2label=dict(enumerate(names)),
        label2id={name: index for index, name in enumerate(names)},
        **sizes | special | changed,
    )
    torch.manual_seed(0)
    return transformers.RobertaForSequenceClassification(config).eval()


def checked(teacher: Mapping[str, Any] | None = None, **data: Any) -> list[str]:
    """Warnings of the dry run of a recipe with the model as teacher; ``...`` removes a key."""
    source = {"name": "texts", "files": "all.csv", "tokenizer": "model", "length": 16}
    section = {"model": "transformers:model", "is_trained": True, **(teacher or {})}
    recipe = build(
        {
            "task": "text_classification",
            "data": {**source, "batch_size": 4, **data},
            "teacher": {key: value for key, value in section.items() if value is not ...},
            "student": {"model": "text_transformer", "options": {"width": 8, "depth": 1}},
            "objectives": {"kd": {}},
            "train": {"epochs": 1},
            "export": None,
        }
    )
    experiment = Experiment.from_recipe(recipe)
    list(dry_run(experiment))
    return [str(sentence) for sentence in experiment.warnings]


def test_classes_in_another_order_than_those_of_the_data_are_an_error() -> None:
    classifier("None", "BAD", "Good").save_pretrained("model")
    assert not checked()
    classifier("good", "None", "bad").save_pretrained("model")
    message = r"logits have the order good, None, bad .*Set data\.class_subset: \[good, None, bad\]"
    with pytest.raises(RecipeError, match=message):
        checked()
    assert not checked(class_subset=["good", "None", "bad"])
    # Names of the recipe replace those of the configuration, and a training replaces the head.
    assert not checked({"classes": ["None", "bad", "good"]})
    assert not checked({"is_trained": False})


def test_a_second_training_of_a_trained_classifier_is_a_warning() -> None:
    classifier("None", "bad", "good").save_pretrained("model")
    (warning,) = checked({"is_trained": ...})
    assert "model is a trained RobertaForSequenceClassification" in warning
    assert "is_trained: true" in warning
    assert not checked({"is_trained": True})
    assert not checked({"is_trained": False})
    classifier("None", "bad", "good").roberta.save_pretrained("model")
    assert not checked({"is_trained": ...})


def test_classes_of_other_names_are_a_warning() -> None:
    classifier("negative", "positive", "neutral").save_pretrained("model")
    (warning,) = checked()
    assert "negative, positive, neutral" in warning
    assert "those of the data None, bad, good" in warning
    classifier("LABEL_0", "LABEL_1", "LABEL_2").save_pretrained("model")
    assert not checked()


def test_tokens_of_another_tokenizer_are_an_error() -> None:
    classifier("None", "bad", "good").save_pretrained("model")
    with pytest.raises(RecipeError, match=r"data\.tokenizer: token 0 is .* '<s>' for the teacher"):
        checked(tokenizer="bpe:300")


@pytest.mark.parametrize("tokenizer", ["model", "bpe:300"])
def test_the_exported_tokenizer_makes_the_rows_of_the_data(tokenizer: str, here: Path) -> None:
    import transformers

    model = classifier("None", "bad", "good")
    data = texts("all.csv", tokenizer=tokenizer, length=16, base=here).train
    batch = data.__getitems__(range(len(data)))
    net = Net(model, TextClassification.call)
    to_transformers(net, batch, here / "student", tokenizer_of_samples(data))
    read = transformers.AutoTokenizer.from_pretrained(here / "student")
    lines = (here / "all.csv").read_text().splitlines()[1:]
    for row, position in enumerate(data.origin.tolist()):
        ids = batch["input_ids"][row][batch["attention_mask"][row] > 0]
        assert read(lines[position].split(",")[0])["input_ids"] == ids.tolist()
        assert (ids[0] == 0) == (tokenizer == "model")
    again = transformers.AutoModelForSequenceClassification.from_pretrained(here / "student")
    assert again.config.pad_token_id == model.config.pad_token_id
    assert again.config.id2label == model.config.id2label
