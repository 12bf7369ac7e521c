"""Prompts of classes: their texts, their embeddings compared with a loop, and wrong options."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from instil.core import Batch, Net, Outputs
from instil.data.samples import TensorData
from instil.data.splits import Splits
from instil.experiment.experiment import Experiment
from instil.recipe import RecipeError
from instil.tasks.bases import class_prompts
from instil.tasks.bases.class_prompts import ClassPrompts
from instil.tasks.image_text import ImageText
from tests.experiment.small import recipe

TEMPLATES = ["a {}", "one {}"]


def encode(texts: Sequence[str]) -> Batch:
    """Two numbers of each text."""
    return {"input_ids": torch.tensor([[len(text), ord(text[-1])] for text in texts])}


def embeddings(_: nn.Module, batch: Batch) -> Outputs:
    """Text embeddings of different lengths, and images as they are."""
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(200, 4, generator=generator)
    return {
        "image_embedding": batch["image"].flatten(1),
        "text_embedding": table[batch["input_ids"]].sum(1),
        "logit_scale": torch.ones(1),
    }


def sample(size: int = 40) -> Batch:
    generator = torch.Generator().manual_seed(1)
    return {
        "image": torch.randn(size, 1, 2, 2, generator=generator),
        "input_ids": torch.arange(size * 2).reshape(size, 2),
        "label": torch.arange(size) % 7,
    }


def data_of(classes: Sequence[str]) -> Splits:
    """Data with these classes and the tokenizer above."""
    samples = TensorData({"image": torch.zeros(1, 1, 2, 2)}, torch.tensor([-100]), classes)
    samples.encode_texts = encode
    return Splits(samples, samples, samples, tuple(classes), "single")


def test_every_class_has_all_templates_and_all_names() -> None:
    names: dict[str, str | list[str]] = {"cat": ["cat", "kitten"], "dog": "dog"}
    prompts = ClassPrompts(["cat", "dog"], TEMPLATES, names, encode)
    assert prompts.texts == [["a cat", "one cat", "a kitten", "one kitten"], ["a dog", "one dog"]]


def test_embeddings_are_normalised_means_of_normalised_prompts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names: dict[str, str | list[str]] = {"cat": ["cat", "kitten"], "dog": "dog"}
    prompts = ClassPrompts(["cat", "dog"], TEMPLATES, names, encode)
    net = Net(nn.Identity(), embeddings)
    expected = []
    for texts in prompts.texts:
        rows = embeddings(net, sample(1) | encode(texts))["text_embedding"]
        mean = sum(row / row.norm() for row in rows) / len(rows)
        assert isinstance(mean, torch.Tensor)
        expected.append(mean / mean.norm())
    embedding = prompts.embedding(net, sample())
    assert embedding is not None
    torch.testing.assert_close(embedding, torch.stack(expected))
    monkeypatch.setattr(class_prompts, "CHUNK", 4)
    in_parts = prompts.embedding(net, sample())
    assert in_parts is not None
    torch.testing.assert_close(in_parts, torch.stack(expected))


def test_zero_shot_metrics_are_those_of_the_prompts() -> None:
    task = ImageText(templates=TEMPLATES)
    task.set_data(data_of(["cat", "dog", "cow", "goat", "horse", "lynx", "elks"]))
    net = Net(nn.Identity(), embeddings)
    batch = sample()
    batch["label"][3] = -100
    parts = [{k: v[:13] for k, v in batch.items()}, {k: v[13:] for k, v in batch.items()}]
    metrics, details = task.evaluate(net, parts, net)
    assert task.prompts is not None
    rows = []
    for texts in task.prompts.texts:
        prompt = F.normalize(embeddings(net, batch | encode(texts))["text_embedding"], dim=1)
        rows.append(F.normalize(prompt.mean(0), dim=0))
    similarity = F.normalize(batch["image"].flatten(1), dim=1) @ torch.stack(rows).T
    first, top5 = 0, 0
    for n, label in enumerate(batch["label"].tolist()):
        order = sorted(range(7), key=lambda c: -float(similarity[n, c]))
        first += label == order[0]
        top5 += label in order[:5]
    assert metrics["accuracy"] == pytest.approx(first / 39)
    assert metrics["top5_accuracy"] == pytest.approx(top5 / 39)
    assert metrics["agreement"] == 1
    assert sum(map(sum, details["confusion"])) == 39
    without = ImageText().evaluate(net, parts)[0]
    assert {key: metrics[key] for key in ("image_recall", "text_recall")} == {
        key: without[key] for key in ("image_recall", "text_recall")
    }
    assert without["accuracy"] != metrics["accuracy"]
    assert "top5_accuracy" not in without


def test_a_teacher_that_cannot_read_prompts_has_no_agreement() -> None:
    task = ImageText(templates=TEMPLATES)
    task.set_data(data_of(["cat", "dog", "horse"]))
    batch = sample(9) | {"label": torch.arange(9) % 3}
    recorded = embeddings(nn.Identity(), batch)
    teacher = Net(
        nn.Identity(), lambda _, b: {k: v[: len(b["image"])] for k, v in recorded.items()}
    )
    metrics, _ = task.evaluate(Net(nn.Identity(), embeddings), [batch], teacher)
    assert "agreement" not in metrics
    assert 0 <= metrics["accuracy"] <= 1


def test_data_without_classes_are_evaluated_by_retrieval() -> None:
    task = ImageText()
    task.set_data(data_of(()))
    batch = sample() | {"label": torch.full((40,), -100)}
    metrics, details = task.evaluate(Net(nn.Identity(), embeddings), [batch])
    assert task.headline == "image_recall"
    assert set(metrics) == {"image_recall", "text_recall"}
    assert not details


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"templates": []}, r"templates: no template\. Expected at least one text"),
        ({"templates": ["a digit"]}, r"templates: wrong template\. Expected one \{\}"),
        ({"templates": ["{} and {}"]}, r"templates: wrong template\. Expected one \{\}"),
        ({"prompt_names": {"zero": "zero"}}, r"prompt_names: without effect\. Expected templates"),
        (
            {"templates": ["{}"], "prompt_names": {"zerro": "zero"}},
            r"prompt_names: the data have no class 'zerro'\. Did you mean zero",
        ),
        (
            {"templates": ["{}"], "prompt_names": {"zero": "zero"}},
            r"prompt_names: no name for the class 'one'\. Expected a text for each of the 10",
        ),
        ({"templates": ["one photo of {}"]}, r"the captions have no word 'photo'"),
    ],
)
def test_wrong_options_are_errors_before_training(options: dict[str, object], message: str) -> None:
    sections = {
        "task": {"name": "image_text", **options},
        "data": {"name": "digit_captions"},
        "student": {"model": "two_towers", "options": {"width": 2}},
        "objectives": {"contrastive": {}},
        "export": None,
    }
    with pytest.raises(RecipeError, match=rf"^task: .*{message}"):
        Experiment.from_recipe(recipe(**sections))


def test_classes_without_tokens_of_their_own() -> None:
    with pytest.raises(ValueError, match=r"the prompts of 'cat' and 'rat' have the same tokens"):
        ClassPrompts(["cat", "dog", "rat"], TEMPLATES, None, encode)
    with pytest.raises(ValueError, match="the data source has no tokenizer for prompts"):
        ClassPrompts(["cat", "dog"], TEMPLATES, None, None)
    with pytest.raises(ValueError, match="the data have 0 classes"):
        ClassPrompts([], TEMPLATES, None, encode)


def test_a_recipe_may_name_retrieval_as_the_headline() -> None:
    sections = {
        "task": "image_text",
        "headline": "image_recall",
        "data": {"name": "digit_captions"},
        "student": {"model": "two_towers", "options": {"width": 2}},
        "objectives": {"contrastive": {}},
        "export": None,
    }
    task = Experiment.from_recipe(recipe(**sections)).task
    assert task.headline == "image_recall"
    assert "accuracy" in task.secondary
    with pytest.raises(RecipeError, match=r"headline.*image_recall, text_recall"):
        Experiment.from_recipe(recipe(**sections | {"headline": "image_recal"}))
