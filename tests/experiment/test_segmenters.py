"""Segmentation models of torchvision and transformers as teachers and students, in recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from instil.networks import factory
from instil.recipe import build
from instil.tasks.segmentation import call
from tests.experiment.small import run_of

SEGFORMER = {
    "model_type": "segformer",
    "depths": [1, 1, 1, 1],
    "hidden_sizes": [8, 8, 16, 16],
    "num_attention_heads": [1, 1, 2, 2],
    "decoder_hidden_size": 8,
}
SWIN = {"model_type": "swin", "embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 1, 1]}
SWIN |= {"window_size": 2, "image_size": 32, "out_features": [f"stage{i}" for i in (1, 2, 3, 4)]}
MASK2FORMER = {
    "model_type": "mask2former",
    "backbone": None,
    "backbone_config": SWIN,
    "feature_size": 64,
    "mask_feature_size": 32,
    "hidden_dim": 32,
    "encoder_feedforward_dim": 16,
    "dim_feedforward": 16,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "num_attention_heads": 2,
    "num_queries": 6,
}
AUTO = {
    "segformer": ("transformers:AutoModelForSemanticSegmentation", {"config": SEGFORMER}),
    "mask2former": ("transformers:AutoModelForUniversalSegmentation", {"config": MASK2FORMER}),
}
FACTS = {"classes": 5, "channels": 1, "size": 32}


def batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(0, 5, (2, 32, 32), generator=generator)
    label[0, :4] = -100
    image = torch.rand(2, 1, 32, 32, generator=generator)
    return {"image": image, "label": label, "valid": label != -100}


@pytest.mark.parametrize("name", AUTO)
def test_models_of_transformers_compute_their_own_loss(name: str) -> None:
    pytest.importorskip("transformers")
    model = factory.build(*AUTO[name], **FACTS)
    outputs = call(model.train(), batch(), pass_labels=True)
    outputs["loss"].backward()
    assert outputs["logits"].shape == (2, 32, 32, 5)
    assert "loss" not in call(model.eval(), batch(), pass_labels=True)
    if name == "segformer":
        # Its own loss is the cross-entropy of the resized logits, without pixels of no label.
        expected = F.cross_entropy(outputs["logits"].movedim(-1, 1), batch()["label"])
        torch.testing.assert_close(outputs["loss"], expected)
    else:
        # A logit is the logarithm of a score, which no query can make larger than their number.
        assert (outputs["logits"].exp().sum(-1) <= 6).all()


@pytest.mark.parametrize("name", AUTO)
def test_recipes_of_transformers(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers")
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))
    model, options = AUTO[name]
    network: dict[str, Any] = {"model": model, "options": options}
    if name == "mask2former":
        network["taps"] = {"features": ["model.pixel_level_module.decoder.mask_projection"]}
    recipe = build(
        {
            "task": "segmentation",
            "data": {"name": "digit_scenes", "scenes": 12, "size": 32, "batch_size": 4},
            "teacher": network,
            "student": network,
            "objectives": {
                "own_loss": {},
                "kd": {},
                "cirkd_minibatch": {},
                "cwd": {"pairs": [[0, 0]]},
            },
            "teacher_train": {"steps": 2},
            "train": {"steps": 2},
            "seeds": [0],
            "baselines": [],
            "export": False,
        }
    )
    result = run_of(recipe, tmp_path / "run")
    assert result["status"] == "complete"
    assert 0 <= result["distilled"]["miou"]["mean"] <= 1
