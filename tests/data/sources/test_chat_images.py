"""Conversations with images: the tokens and inputs of the model's own processor."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from instil.core import Batch, Net
from instil.data.sources.chat import chat
from instil.data.splits import Splits
from instil.generation.rollout import generate_text
from instil.networks.presets import taps_for
from instil.roles import IMAGE_TOKENS
from instil.tasks.bases.causal_model import call
from tests.data.chat_files import tokenizer_folder
from tests.networks.sources.vision_folders import (
    PLACEHOLDERS,
    question,
    write_images,
    write_vision_model,
)

pytest.importorskip("torchvision")


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("llava")
    write_vision_model(folder, "llava")
    return str(folder)


def rows_of(folder: Path, rows: list[Any], tokenizer: str, **options: Any) -> Splits:
    """Read these rows as training, validation and test data."""
    (folder / "chat.jsonl").write_text("\n".join(map(json.dumps, rows)))
    file = str(folder / "chat.jsonl")
    files = {"train": file, "validation": file, "test": file}
    return chat(files, tokenizer, **{"length": 80, "processes": 1} | options)


@pytest.mark.parametrize("name", ["llava", "idefics3", "qwen2_vl"])
def test_a_batch_gives_the_logits_of_each_row_alone(name: str, tmp_path: Path) -> None:
    model, processor = write_vision_model(tmp_path / "model", name)
    images = write_images(tmp_path / "images", 3)
    rows = [
        question(images[:2], "Two shades?", "Both."),
        question([], "No image?", "None at all."),
        question(images[2:], "One?", "Yes."),
    ]
    # A further turn with an image after the first answer.
    rows[2]["messages"] += question(images[:1], "And this?", "No.")["messages"]
    samples: Any = rows_of(tmp_path, rows, str(tmp_path / "model")).train
    batch = samples.__getitems__([0, 1, 2])
    with torch.no_grad():
        logits = call(model, batch)["logits"]
    for index, row in enumerate(rows):
        opened = []
        messages: list[Any] = []
        for turn in row["messages"]:
            content = turn["content"]
            if isinstance(content, str):
                content = [{"type": "text", "text": content}]
            opened += [Image.open(tmp_path / part["image"]) for part in content if "image" in part]
            messages.append(turn | {"content": content})
        text = processor.apply_chat_template(messages, tokenize=False)
        inputs = processor(
            text=[text], images=opened or None, return_tensors="pt", add_special_tokens=False
        )
        length = inputs["input_ids"].shape[1] - 1
        assert torch.equal(batch["input_ids"][index, :length], inputs["input_ids"][0, :-1])
        with torch.no_grad():
            alone = model(**inputs).logits[0, :-1]
        torch.testing.assert_close(logits[index, :length], alone, atol=1e-5, rtol=1e-4)
        learned = batch["label"][index][batch["label"][index] >= 0].tolist()
        answers = [turn["content"] for turn in row["messages"] if turn["role"] == "assistant"]
        text = samples.text_of([token for token in learned if token not in samples.ends])
        assert text == "".join(answers)
    # Paths of taps are in the decoder, because the image tower does not run for texts alone.
    net = Net(model, call, taps=taps_for(model))
    with torch.no_grad():
        alone = net({key: value[1:2] for key, value in batch.items()})["logits"]
    is_token = batch["attention_mask"][1] > 0
    torch.testing.assert_close(alone[0, is_token], logits[1, is_token], atol=1e-5, rtol=1e-4)
    _check_texts(Net(model, call), samples, batch)
    assert batch[IMAGE_TOKENS].sum() > 0
    assert not batch["valid"][:, :-1][batch[IMAGE_TOKENS][:, 1:] > 0].any()


def _check_texts(net: Net, samples: Any, batch: Batch) -> None:
    """Compare generated tokens with the most likely ones of a plain forward pass."""
    text = generate_text(net, batch, samples.ends, max_new_tokens=4, temperature=0.0)
    with torch.no_grad():
        expected = net(text)["logits"].argmax(-1)
    is_new = text["valid"]
    assert is_new.any(1).all()
    assert torch.equal(text["token"][is_new], expected[is_new])
    before = torch.arange(is_new.shape[1]) < is_new.int().argmax(1, keepdim=True)
    assert (text[IMAGE_TOKENS] * ~before == 0).all(), "all images are in the prompts"


def test_the_forms_of_an_image_are_equal(tmp_path: Path, llava: str) -> None:
    (name,) = write_images(tmp_path / "images", 1)
    url = base64.b64encode((tmp_path / name).read_bytes()).decode()
    text = {"type": "text", "text": "Which?"}
    parts: list[Any] = [
        {"type": "image", "image": name},
        {"type": "image", "path": str(tmp_path / name)},
        {"type": "image_url", "image_url": {"url": f"file://{tmp_path / name}"}},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{url}"}},
    ]
    answer = {"role": "assistant", "content": "0"}
    rows: list[Any] = [
        {"messages": [{"role": "user", "content": [part, text]}, answer]} for part in parts
    ]
    rows.append(
        {
            "messages": [{"role": "user", "content": [{"type": "image"}, text]}, answer],
            "images": [name],
        }
    )
    rows.append({"messages": [{"role": "user", "content": "<image>Which?"}, answer], "image": name})
    samples: Any = rows_of(tmp_path, rows, llava, loss_on="all").train
    batch = samples.__getitems__(range(len(rows)))
    for key in ("input_ids", "padded_pixel_values"):
        assert all(torch.equal(row, batch[key][0]) for row in batch[key]), key
    assert batch["padded_pixel_values"].shape == (6, 1, 3, 16, 16)
    assert not batch["valid"][:, :-1][batch[IMAGE_TOKENS][:, 1:] > 0].any(), "never learned"


def test_a_changed_image_is_read_again(tmp_path: Path, llava: str) -> None:
    names = write_images(tmp_path / "images", 2)
    rows = [question(names, "?", "0")]
    first: Any = rows_of(tmp_path, rows, llava).train
    again: Any = rows_of(tmp_path, rows, llava).train
    assert again.content() == first.content()
    Image.new("RGB", (16, 16), "red").save(tmp_path / names[0])
    changed: Any = rows_of(tmp_path, rows, llava).train
    assert changed.content() != first.content()
    assert not torch.equal(
        changed.__getitems__([0])["padded_pixel_values"],
        torch.zeros(1, 2, 3, 16, 16),
    )


def test_the_same_file_in_another_folder_has_the_images_of_its_folder(
    tmp_path: Path, llava: str
) -> None:
    batches = []
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        images = write_images(folder / "images", 1)
        if name == "second":
            Image.new("RGB", (16, 16), "red").save(folder / images[0])
        samples: Any = rows_of(folder, [question(images, "?", "0")], llava).train
        batches.append(samples.__getitems__([0])["padded_pixel_values"])
    assert not torch.equal(*batches)


def user(*content: Any, **columns: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": list(content)}, {"role": "assistant", "content": "0"}]
    return {"messages": messages} | columns


IMAGE = {"type": "image", "image": "images/0.png"}
WRONG = [
    (
        user({"type": "image", "image": "none.png"}),
        r"chat.jsonl, line 1: the image .*none.png cannot be read: there is no such file",
    ),
    (
        user({"type": "image", "image": "broken.png"}),
        r"line 1: the image .*broken.png cannot be read: .*\. Expected an image file",
    ),
    (
        user({"type": "image_url", "image_url": {"url": "https://host/cat.png"}}),
        "line 1: message 0: the image https://host/cat.png is not on this computer",
    ),
    (
        user({"type": "image_url", "image_url": {"url": "data:image/png;base64,?"}}),
        "its URL is not base64",
    ),
    (
        user(IMAGE, {"type": "text", "text": "<image>"}),
        "line 1: 1 images for 2 placeholders <image> in the text. Expected one image for each",
    ),
    (user({"type": "image"}, images=["images/0.png"] * 2), "2 images for 1 placeholders"),
    (user({"type": "text", "text": "<image>"}), "0 images for 1 placeholders"),
    (user({"type": "image"}), "line 1: an image has no source. Expected its file in the part"),
    (user(IMAGE, images=["images/0.png"]), "an image has two sources"),
    (user({"type": "image", "image": 5}), "an image is 5. Expected the path of its file"),
    (user({"type": "audio"}), "a part of type 'audio'. Expected text or image"),
    (
        {"messages": [{"role": "assistant", "content": [IMAGE]}]},
        "message 0: an answer has an image. Expected text only",
    ),
]


@pytest.mark.parametrize(("row", "message"), WRONG, ids=lambda value: str(value)[-30:])
def test_wrong_images(row: Any, message: str, tmp_path: Path, llava: str) -> None:
    write_images(tmp_path / "images", 1)
    (tmp_path / "broken.png").write_text("no image")
    with pytest.raises(ValueError, match=message):
        rows_of(tmp_path, [row], llava)


@pytest.mark.parametrize(
    "option", [{"packing": True}, {"prune": True}, {"truncation": "right"}], ids=str
)
def test_options_without_images(option: Any, tmp_path: Path, llava: str) -> None:
    write_images(tmp_path / "images", 1)
    with pytest.raises(ValueError, match=rf"{next(iter(option))}: .* for rows with images"):
        rows_of(tmp_path, [user(IMAGE)], llava, **option)


def test_models_of_texts_have_no_images(tmp_path: Path, llava: str) -> None:
    write_images(tmp_path / "images", 1)
    folder = tokenizer_folder(tmp_path / "tokenizer")
    with pytest.raises(ValueError, match="a message has an image, but the chat template reads te"):
        rows_of(tmp_path, [user(IMAGE)], folder)
    row = {"prompt": PLACEHOLDERS["llava"], "completion": "0", "image": "images/0.png"}
    with pytest.raises(ValueError, match=r"there is no processor of images .* data.tokenizer to"):
        rows_of(tmp_path, [row], folder)
    listens = {"feature_extractor_type": "WhisperFeatureExtractor"}
    (Path(folder) / "preprocessor_config.json").write_text(json.dumps(listens))
    with pytest.raises(ValueError, match=r"there is no processor of images"):
        rows_of(tmp_path, [row], folder)
    samples: Any = rows_of(tmp_path, [row], llava).train
    assert samples.__getitems__([0])["padded_pixel_values"].shape == (1, 1, 3, 16, 16)
