"""Contrastive loss against loops over the paper's pseudocode (figure 3)."""

from __future__ import annotations

import math

import pytest
import torch

from instil.objectives.labels.contrastive import contrastive_loss


def loop_loss(image: list[list[float]], text: list[list[float]], scale: float) -> float:
    def unit(row: list[float]) -> list[float]:
        length = math.sqrt(sum(value * value for value in row))
        return [value / length for value in row]

    image, text = [unit(row) for row in image], [unit(row) for row in text]
    logits = [
        [scale * sum(a * b for a, b in zip(one, other, strict=True)) for other in text]
        for one in image
    ]
    total = 0.0
    for n in range(len(logits)):
        total -= logits[n][n] - math.log(sum(math.exp(value) for value in logits[n]))
        total -= logits[n][n] - math.log(sum(math.exp(row[n]) for row in logits))
    return total / (2 * len(logits))


def test_values() -> None:
    generator = torch.Generator().manual_seed(0)
    image, text = (torch.randn(5, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    for scale in (1.0, 14.3):
        expected = loop_loss(image.tolist(), text.tolist(), scale)
        assert contrastive_loss(image, text, scale).item() == pytest.approx(expected, rel=1e-12)
        assert contrastive_loss(
            3 * image, 0.1 * text, torch.tensor([scale])
        ).item() == pytest.approx(expected, rel=1e-6)


def test_is_symmetric_in_images_and_texts_and_zero_for_one_pair() -> None:
    image, text = torch.randn(6, 4), torch.randn(6, 4)
    torch.testing.assert_close(contrastive_loss(image, text), contrastive_loss(text, image))
    assert contrastive_loss(image[:1], text[:1]) == 0


def test_identical_texts_give_the_loss_of_a_uniform_guess() -> None:
    image = torch.randn(8, 4)
    assert contrastive_loss(image, torch.ones(8, 4)).item() > math.log(8) - 1e-4


def test_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Expected \(N, D\) for both, got \(2, 3\) and \(2, 4\)"):
        contrastive_loss(torch.ones(2, 3), torch.ones(2, 4))


def test_compiles() -> None:
    compiled = torch.compile(contrastive_loss, fullgraph=True, backend="eager")
    image, text = torch.randn(4, 3), torch.randn(4, 3)
    torch.testing.assert_close(
        compiled(image, text, torch.tensor([5.0])),
        contrastive_loss(image, text, torch.tensor([5.0])),
    )
