"""Vision-language models of transformers by folder, in the task ``language``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from instil.core import Net
from instil.export.transformers import to_transformers
from instil.networks.factory import build
from instil.objectives.logits.forward_kl import ForwardKL
from instil.schemes.offline.offline import Offline
from instil.students.depth import depth
from instil.students.layers import stack
from instil.tasks.language import call
from instil.teachers.frozen import Frozen
from instil.training.fit import fit
from instil.training.settings import Training

transformers = pytest.importorskip("transformers")
CAUSAL = "transformers:AutoModelForCausalLM"
IMAGE = 39
"""Token in whose place the features of the image are."""
IDS = torch.tensor([[1, 5, *[IMAGE] * 4, 7, 8, 9], [1, 6, *[IMAGE] * 4, 3, 4, 2]])
TEXT: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
}
VISION = {
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "image_size": 16,
}


def write_model(folder: Path, name: str) -> Any:
    """Write a random vision-language model of a family, whose image tower has the most layers."""
    if name == "llava":
        vision = VISION | {"model_type": "clip_vision_model", "patch_size": 8}
        config = transformers.LlavaConfig(
            text_config=TEXT,
            vision_config=vision,
            image_token_index=IMAGE,
            vision_feature_layer=-1,
        )
    else:
        config = transformers.Idefics3Config(
            text_config=TEXT,
            vision_config=VISION | {"patch_size": 4},
            image_token_id=IMAGE,
            scale_factor=2,
        )
    torch.manual_seed(0)
    model = transformers.AutoModelForImageTextToText.from_config(config).eval()
    model.save_pretrained(folder)
    return model


def batch_of(name: str) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (2, 3, 16, 16) if name == "llava" else (2, 1, 3, 16, 16)
    label = IDS.roll(-1, 1)
    # Positions whose next token is text.
    valid = label != IMAGE
    valid[:, -1] = False
    return {
        "input_ids": IDS,
        "attention_mask": torch.ones_like(IDS),
        "pixel_values": torch.randn(shape, generator=generator),
        "label": label,
        "valid": valid,
    }


@pytest.mark.parametrize("name", ["llava", "idefics3"])
def test_a_student_with_fewer_layers_of_text_learns_from_images(name: str, tmp_path: Path) -> None:
    own = write_model(tmp_path / "teacher", name)
    batch = batch_of(name)
    options = {"path": str(tmp_path / "teacher")}
    teacher = build(CAUSAL, options, pretrained=True).eval()
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask", "pixel_values")}
    with torch.no_grad():
        expected = own(**inputs)["logits"]
        outputs = call(teacher, batch)
        other = call(teacher, batch | {"pixel_values": -batch["pixel_values"]})
    torch.testing.assert_close(outputs["logits"], expected)
    assert "projection" in outputs
    assert not torch.equal(outputs["logits"], other["logits"])
    student = depth(build(CAUSAL, options, pretrained=True), [0, 2])
    assert len(stack(student)[1]) == student.config.get_text_config().num_hidden_layers == 2
    scheme = Offline(Net(student, call), Frozen(Net(teacher, call)), {"kl": ForwardKL()})
    scheme.prepare(batch)
    before = scheme.compute_losses(batch).losses["kl"].item()
    fit(scheme, [batch], Training(epochs=5, device="cpu"))
    assert scheme.compute_losses(batch).losses["kl"].item() < before
    written = to_transformers(Net(student, call).eval(), batch, tmp_path / "student")
    assert written["max_difference"] < 1e-4
