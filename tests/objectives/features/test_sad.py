from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from instil.objectives.features.sad import SAD, sad_loss

Features = Callable[..., dict[str, tuple[Tensor, ...]]]


def softmax(values: np.ndarray) -> np.ndarray:
    exponents = np.exp(values - values.max())
    return exponents / exponents.sum()


@pytest.mark.parametrize("upsample", ["attention", "features"])
def test_is_the_distance_of_softmax_attentions(upsample: str) -> None:
    stage, deeper = torch.randn(2, 3, 4, 6).double(), torch.randn(2, 5, 2, 3).double()
    for n, ours in enumerate(sad_loss(stage, deeper, upsample, "none")):  # type: ignore[arg-type]
        source = deeper[n] if upsample == "features" else deeper[n].square().mean(0, keepdim=True)
        large = F.interpolate(source[None], (4, 6), mode="bilinear")[0].numpy()
        target = (large**2).mean(0) if upsample == "features" else large[0]
        difference = softmax((stage[n].numpy() ** 2).mean(0)) - softmax(target)
        assert float(ours) == pytest.approx(float((difference**2).mean()))


def test_the_deeper_level_has_no_gradient() -> None:
    stage, deeper = (
        torch.randn(2, 3, 4, 4, requires_grad=True),
        torch.randn(2, 5, 2, 2, requires_grad=True),
    )
    sad_loss(stage, deeper).backward()
    assert stage.grad is not None
    assert deeper.grad is None


def test_sums_over_consecutive_levels_of_maps_and_tokens(features: Features) -> None:
    for family in ("cnn", "vit"):
        student = features(family)
        objective = SAD()
        objective.build(student, {})
        levels = student["features"]
        expected = torch.stack(
            [sad_loss(levels[i], levels[i + 1], reduction="none") for i in range(len(levels) - 1)]
        ).sum(0)
        values = objective(student, {}, {})
        assert values.shape == (4,)
        assert torch.allclose(values, expected)


def test_one_level_one_position_and_an_unknown_option_are_errors(features: Features) -> None:
    with pytest.raises(
        ValueError, match="SAD goes from one stage to the next and needs two pairs of stages, not 1"
    ):
        SAD().build(features("one map"), {})
    with pytest.raises(ValueError, match=r"more than one position.*got \(2, 3, 1, 1\)"):
        sad_loss(torch.zeros(2, 3, 1, 1), torch.zeros(2, 3, 1, 1))
    with pytest.raises(
        ValueError, match=r"upsample: unknown value.*got 'feature'. Did you mean features"
    ):
        sad_loss(torch.zeros(2, 3, 2, 2), torch.zeros(2, 3, 1, 1), "feature")


def test_compiles_whole() -> None:
    stage, deeper = torch.randn(2, 3, 4, 4), torch.randn(2, 5, 2, 2)
    assert torch.allclose(
        torch.compile(sad_loss, fullgraph=True, backend="eager")(stage, deeper),
        sad_loss(stage, deeper),
    )
