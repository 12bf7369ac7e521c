"""Image-text alignment: the call; zero-shot accuracy and recall compared with loops."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instil.core import Batch, Net, Outputs
from instil.networks.two_towers import two_towers
from instil.tasks.bases.image_text_scores import zero_shot
from instil.tasks.image_text import ImageText, call
from instil.teachers.frozen import Frozen
from tests.tasks.samples import pairs


def embeddings(_: nn.Module, batch: Batch) -> Outputs:
    return {
        "image_embedding": batch["image"].flatten(1),
        "text_embedding": batch["text"],
        "logit_scale": torch.ones(1),
    }


def sample(size: int = 9) -> Batch:
    generator = torch.Generator().manual_seed(0)
    image, text = (
        torch.randn(size, 1, 2, 2, generator=generator),
        torch.randn(size, 4, generator=generator),
    )
    ids = torch.arange(size)[:, None] // 2  # each text occurs twice
    return {"image": image, "text": text, "input_ids": ids, "label": torch.arange(size) % 3}


def closest(one: Tensor, others: list[Tensor]) -> int:
    values = [float(F.cosine_similarity(one, other, dim=0)) for other in others]
    return values.index(max(values))


def test_metrics_equal_loops() -> None:
    batch = sample()
    batch["label"][4] = -100
    metrics, details = ImageText().evaluate(
        Net(nn.Identity(), embeddings),
        [{k: v[:5] for k, v in batch.items()}, {k: v[5:] for k, v in batch.items()}],
    )
    images, texts, ids = (
        list(batch["image"].flatten(1)),
        list(batch["text"]),
        batch["input_ids"][:, 0].tolist(),
    )
    classes = [F.normalize(batch["text"][batch["label"] == c], dim=1).mean(0) for c in range(3)]
    right = [
        closest(image, classes) == int(label)
        for image, label in zip(images, batch["label"], strict=True)
        if label >= 0
    ]
    assert metrics["accuracy"] == pytest.approx(sum(right) / len(right))
    assert metrics["text_recall"] == pytest.approx(
        sum(ids[closest(image, texts)] == ids[n] for n, image in enumerate(images)) / 9
    )
    assert metrics["image_recall"] == pytest.approx(
        sum(ids[closest(text, images)] == ids[n] for n, text in enumerate(texts)) / 9
    )
    assert sum(map(sum, details["confusion"])) == 8


def test_a_class_without_a_text_is_never_predicted() -> None:
    image = F.normalize(torch.randn(20, 4), dim=1)
    label = torch.tensor([0, 2] * 10)
    assert set(zero_shot(image, -image, label).tolist()) <= {0, 2}


def test_agreement_compares_zero_shot_classes() -> None:
    batch = sample()
    net = Net(nn.Identity(), embeddings)
    other = Net(
        nn.Identity(), lambda model, batch: embeddings(model, batch | {"image": -batch["image"]})
    )
    assert ImageText().evaluate(net, [batch], Frozen(net))[0]["agreement"] == 1
    assert ImageText().evaluate(net, [batch], Frozen(other))[0]["agreement"] < 1


def test_data_without_labels_and_infinite_outputs_raise() -> None:
    with pytest.raises(ValueError, match="no image to evaluate on has a label"):
        ImageText().evaluate(
            Net(nn.Identity(), embeddings), [sample() | {"label": torch.full((9,), -100)}]
        )
    with pytest.raises(ValueError, match="9 of 9 items have embeddings that are not finite"):
        ImageText().evaluate(
            Net(nn.Identity(), embeddings), [sample() | {"text": torch.full((9, 4), torch.nan)}]
        )


def test_two_towers() -> None:
    model = two_towers(9, length=5, channels=1, dimension=6, width=2, stages=2, text_width=8).eval()
    outputs = call(model, pairs())
    for role in ("image_embedding", "text_embedding"):
        torch.testing.assert_close(outputs[role].norm(dim=1), torch.ones(12))
    assert outputs["logit_scale"].shape == (1,)
    assert outputs["logit_scale"].item() == pytest.approx(1 / 0.07)
    with torch.no_grad():
        model.logit_scale += 10
    assert call(model, pairs())["logit_scale"].item() == pytest.approx(100), (
        "the largest scale in section 2.5"
    )


def test_transformers_clip() -> None:
    transformers = pytest.importorskip("transformers")
    text = {
        "vocab_size": 9,
        "hidden_size": 8,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 5,
    }
    vision = {
        "hidden_size": 8,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 4,
        "patch_size": 2,
    }
    model = transformers.CLIPModel(
        transformers.CLIPConfig(
            text_config=text, vision_config=vision | {"num_channels": 1}, projection_dim=6
        )
    ).eval()
    outputs = call(model, pairs())
    assert outputs["image_embedding"].shape == outputs["text_embedding"].shape == (12, 6)
    assert outputs["logit_scale"].item() == pytest.approx(model.logit_scale.exp().item())
