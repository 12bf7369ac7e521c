"""Source ``captions``: pictures with texts, classes, prompts, and wrong files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from instil.data.sources.captions import captions
from instil.experiment.dry_run import dry_run
from instil.experiment.experiment import Experiment
from instil.recipe import RecipeError, build
from instil.tasks.bases.image_text_scores import recalls

COLOURS = ("red", "green", "blue")


def write_rows(path: Path, rows: list[dict[str, object]]) -> None:
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")


@pytest.fixture
def album(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Thirty pictures of one colour, whose text names it."""
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "pictures").mkdir()
    rows: list[dict[str, object]] = []
    for i in range(30):
        colour = COLOURS[i % 3]
        Image.new("RGB", (8 + i % 2, 8), colour).save(tmp_path / f"pictures/{i}.png")
        text = f"a {colour} picture"
        rows.append({"file": f"pictures/{i}.png", "caption": text, "colour": colour})
    write_rows(tmp_path / "album.jsonl", rows)
    return tmp_path


def options(album: Path) -> dict[str, object]:
    return {
        "files": str(album / "album.jsonl"),
        "image": "file",
        "text": "caption",
        "tokenizer": "bytes",
        "length": 20,
        "size": 8,
    }


def sections(album: Path) -> dict[str, object]:
    towers = {"model": "two_towers", "options": {"width": 2, "text_width": 4}}
    return {
        "task": "image_text",
        "data": {"name": "captions", "batch_size": 8, **options(album)},
        "teacher": towers,
        "student": towers,
        "objectives": {"contrastive": {}, "clip_feature": {}},
        "train": {"epochs": 1},
        "export": None,
    }


def test_a_sample_is_a_picture_and_its_text(album: Path) -> None:
    data = captions(**options(album), label="colour")  # type: ignore[arg-type]
    assert data.classes == ("blue", "green", "red")
    assert [len(part) for part in (data.train, data.validation, data.test)] == [22, 4, 4]
    assert data.train.facts == {
        "classes": 3,
        "channels": 3,
        "size": 8,
        "vocabulary": 257,
        "length": 20,
    }
    batch = data.test.__getitems__(range(4))
    assert batch["image"].shape == (4, 3, 8, 8)
    for n in range(4):
        size = int(batch["attention_mask"][n].sum())
        text = bytes(batch["input_ids"][n, : size - 1].tolist()).decode()
        colour = data.classes[int(batch["label"][n])]
        assert text == f"a {colour} picture"
        expected = torch.tensor(Image.new("RGB", (1, 1), colour).getpixel((0, 0))) / 255
        torch.testing.assert_close(batch["image"][n, :, 0, 0], expected)


def test_pairs_without_classes_are_trained_and_judged_by_retrieval(album: Path) -> None:
    experiment = Experiment.from_recipe(build(sections(album)))
    assert experiment.task.headline == "image_recall"
    assert (experiment.splits.train.label == -100).all()
    list(dry_run(experiment))


def test_prompts_have_the_tokens_of_the_texts(album: Path) -> None:
    recipe = sections(album)
    recipe["task"] = {"name": "image_text", "templates": ["a {} picture"]}
    recipe["data"] = {**recipe["data"], "label": "colour"}  # type: ignore[dict-item]
    experiment = Experiment.from_recipe(build(recipe))
    list(dry_run(experiment))
    batch = experiment.splits.test.__getitems__(range(4))
    prompts = experiment.task.prompts.inputs["input_ids"][batch["label"]]
    assert torch.equal(prompts, batch["input_ids"])
    recipe["task"] = {"name": "image_text", "templates": ["a very long text before the {}"]}
    with pytest.raises(RecipeError, match="'blue' and 'green' have the same tokens"):
        Experiment.from_recipe(build(recipe))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"caption": " "}, r"album\.jsonl, row 0: 'caption' is ' '\. Expected a text"),
        ({"file": "pictures/99.png"}, r"album\.jsonl, row 0: no '99\.png' in"),
        ({"file": "album.jsonl"}, r"album\.jsonl cannot be read as a picture"),
    ],
)
def test_wrong_rows(album: Path, change: dict[str, object], message: str) -> None:
    lines = (album / "album.jsonl").read_text().splitlines()
    lines[0] = json.dumps({**json.loads(lines[0]), **change})
    (album / "album.jsonl").write_text("\n".join(lines))
    with pytest.raises(ValueError, match=message):
        captions(**options(album))  # type: ignore[arg-type]


def test_a_picture_that_cannot_be_read_may_be_left_out(album: Path) -> None:
    (album / "pictures/3.png").write_text("no picture")
    data = captions(**options(album), broken="skip")  # type: ignore[arg-type]
    assert sum(len(part) for part in (data.train, data.validation, data.test)) == 29
    assert "pictures/3.png" in data.notes[0]


def test_a_missing_column(album: Path) -> None:
    with pytest.raises(ValueError, match=r"text: .* no column 'captoin'.*Did you mean caption"):
        captions(**options(album) | {"text": "captoin"})  # type: ignore[arg-type]


def test_none_is_the_name_of_a_class(album: Path) -> None:
    lines = ["file,caption,colour"]
    lines += [f"pictures/{i}.png,a picture,{('red', 'None')[i % 2]}" for i in range(30)]
    (album / "album.csv").write_text("\n".join(lines))
    source = options(album) | {"files": str(album / "album.csv")}
    data = captions(**source, label="colour")  # type: ignore[arg-type]
    assert data.classes == ("None", "red")
    assert (data.train.label >= 0).all()


def test_a_picture_with_several_texts_is_in_one_split_and_counts_as_one(album: Path) -> None:
    rows = [
        {"file": f"pictures/{i}.png", "caption": f"text {i} {j}"} for i in range(20) for j in "ab"
    ]
    write_rows(album / "album.jsonl", rows)
    data = captions(**options(album))
    parts = (data.train, data.validation, data.test)
    pictures = [{row // 2 for row in part.origin.tolist()} for part in parts]
    assert sum(map(len, pictures)) == len(set().union(*pictures)) == 20
    batch = data.test.__getitems__(range(len(data.test)))
    assert (batch["picture"][::2] == batch["picture"][1::2]).all()
    # A text that finds the other row of its picture has result its picture.
    image = torch.eye(len(data.test) // 2).repeat_interleave(2, 0)
    index = torch.arange(len(image))
    assert recalls(image, image, index)["image_recall"] == 0.5
    result = recalls(image, image, index, batch["picture"])
    assert result == {"image_recall": 1, "text_recall": 1}
