from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from instil.core import Outputs
from instil.functional.contrastive import contrastive, symmetric_contrastive
from instil.functional.similarities import scaled_similarities
from instil.modules.learned_scale import LearnedScale, require_form
from instil.objectives.features.clip_feature import CLIPFeature
from instil.objectives.relations.augmented_feature import AugmentedFeature
from instil.objectives.relations.interactive_contrastive import InteractiveContrastive


def outputs(width: int, size: int = 4, seed: int = 0) -> Outputs:
    generator = torch.Generator().manual_seed(seed)
    return {
        role: torch.randn(size, width, generator=generator)
        for role in ("image_embedding", "text_embedding")
    }


def test_contrastive_agrees_with_a_plain_loop() -> None:
    similarity = torch.randn(4, 4, dtype=torch.float64)
    rows = [-np.log(np.exp(row[n]) / np.exp(row).sum()) for n, row in enumerate(similarity.numpy())]
    columns = [
        -np.log(np.exp(row[n]) / np.exp(row).sum()) for n, row in enumerate(similarity.numpy().T)
    ]
    assert np.isclose(float(contrastive(similarity)), np.mean(rows))
    assert np.isclose(float(symmetric_contrastive(similarity)), np.mean(rows + columns))
    assert float(contrastive(torch.randn(1, 1))) == 0


def test_similarities_are_of_all_images_with_all_texts() -> None:
    image, text = torch.randn(3, 5), torch.randn(4, 5)
    assert torch.allclose(
        scaled_similarities(image, text, torch.tensor([2.0])),
        2 * torch.einsum("nd,md->nm", image, text),
    )


def test_embeddings_are_projected_where_the_widths_differ() -> None:
    objective = CLIPFeature()
    objective.build(outputs(6), outputs(6))
    assert not list(objective.parameters())
    image, text = objective.projected(outputs(6))
    assert torch.allclose(image, F.normalize(outputs(6)["image_embedding"], dim=1))
    objective.build(outputs(6), outputs(9))
    assert {
        name: tuple(value.shape) for name, value in objective.named_parameters() if "weight" in name
    } == {
        "projections.image_embedding.weight": (9, 6),
        "projections.text_embedding.weight": (9, 6),
    }
    image, text = objective.projected(outputs(6))
    layer = objective.projections["text_embedding"]
    assert torch.allclose(text, F.normalize(layer(outputs(6)["text_embedding"]), dim=1))
    assert not torch.allclose(image, text)


def test_one_modality_alone_may_need_a_projection() -> None:
    objective = CLIPFeature()
    teacher = outputs(6) | {"text_embedding": torch.randn(4, 9)}
    objective.build(outputs(6), teacher)
    assert list(objective.projections) == ["text_embedding"]
    assert objective(outputs(6), teacher, {}).shape == (4,)


@pytest.mark.parametrize(("form", "scale"), [("code", math.log(1 / 0.07)), ("paper", 1 / 0.07)])
def test_the_scale_starts_where_clip_starts(form: str, scale: float) -> None:
    scale_module = LearnedScale(form, torch.zeros(2, 3))  # type: ignore[arg-type]
    assert scale_module().shape == (1,)
    assert scale_module().item() == pytest.approx(scale, rel=1e-5)
    for kind in (InteractiveContrastive, AugmentedFeature):
        objective = kind(form=form)  # type: ignore[arg-type]
        objective.build(outputs(6), outputs(9))
        assert objective.scale().item() == pytest.approx(scale, rel=1e-5)
        (gradient,) = torch.autograd.grad(
            objective(outputs(6, seed=1), outputs(9), {}), objective.scale.value
        )
        assert gradient.abs() > 0


def test_an_unknown_form() -> None:
    with pytest.raises(ValueError, match=r"got 'papr'\. Did you mean paper"):
        require_form("papr")
