"""Tapped sequences, signals and tokens as feature maps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from instil.core import Net, Objectives
from instil.objectives.features.fitnet import FitNet
from instil.taps.layout import as_layout


class Speech(nn.Module):
    """A convolution over time, and a layer on the sequence of its frames."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 5, 3, stride=2, padding=1)
        self.layer = nn.Linear(5, 7)

    def forward(self, wave: Tensor) -> Tensor:
        frames: Tensor = self.layer(self.conv(wave).mT)
        return frames.mean(1)


def features(tap: str | list[str], inputs: Tensor | None = None) -> Tensor:
    torch.manual_seed(0)
    wave = torch.randn(3, 2, 20) if inputs is None else inputs
    outputs = Net(Speech(), taps={"features": tap})({"x": wave})
    return outputs["features"]


def test_a_sequence_and_a_signal_are_maps_of_height_one() -> None:
    assert torch.equal(features("layer@sequence"), features("layer").mT.unsqueeze(2))
    assert torch.equal(features("conv@signal"), features("conv").unsqueeze(2))
    assert torch.equal(features("layer:in@sequence"), features("conv@signal"))
    assert features("layer@sequence").shape == (3, 7, 1, 10)


def test_every_call_and_lists_of_paths_have_a_layout() -> None:
    (only,) = features("layer[*]@sequence")
    assert torch.equal(only, features("layer@sequence"))
    first, second = features(["conv@signal", "layer"])
    assert first.shape == (3, 5, 1, 10)
    assert second.shape == (3, 10, 7)


def test_tokens_of_a_video_become_its_grid_without_the_leading_ones() -> None:
    grid = features("layer@2x2x2")
    tokens = features("layer")[:, 2:]
    assert torch.equal(grid, tokens.mT.reshape(3, 7, 2, 2, 2))
    assert torch.equal(grid[:, :, 1, 0, 1], tokens[:, 5])


@pytest.mark.parametrize("layout", ["1d", "8", "2x", "2x2x2x2", "Sequence"])
def test_an_unknown_layout_is_an_error(layout: str) -> None:
    with pytest.raises(ValueError, match=rf"taps.features: unknown layout '@{layout}'.*@8x14x14"):
        features(f"layer@{layout}")


def test_values_that_do_not_fit_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"'layer': .*at least 12 tokens, got shape \(3, 10, 7\)"):
        features("layer@3x4")
    with pytest.raises(ValueError, match=r"'': .*three dimensions, got shape \(3, 7\)"):
        features("@sequence")
    with pytest.raises(ValueError, match=r"'layer': .*four dimensions, got shape \(3, 10, 7\)"):
        features("layer@channels_last")


def test_maps_with_the_channels_last() -> None:
    values = torch.randn(2, 4, 5, 3)
    assert torch.equal(as_layout(values, "channels_last", ""), values.permute(0, 3, 1, 2))


def test_sequences_of_different_length_are_compared_along_time() -> None:
    student = {"features": (features("layer@sequence"),)}
    teacher = {"features": (features("layer@sequence", torch.randn(3, 2, 40)),)}
    objectives = Objectives({"fitnet": FitNet()})
    objectives.build(student, teacher)
    loss = objectives(student, teacher, {"index": torch.arange(3)}).losses["fitnet"]
    longer = nn.functional.interpolate(features("layer").mT, 20, mode="linear")
    expected = (longer - teacher["features"][0].squeeze(2)).square().mean()
    torch.testing.assert_close(loss, expected)
