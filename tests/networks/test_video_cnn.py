"""Networks of videos: what the frames exchange, levels, and one network for each channel group."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from instil.core import Net
from instil.networks.modality_streams import modality_streams
from instil.networks.presets import taps_for
from instil.networks.video_cnn import TemporalShift, video_cnn
from instil.tasks.video_classification import call


def test_shifted_channels_are_those_of_the_next_and_the_previous_frame() -> None:
    video = torch.randn(2, 8, 5, 3, 3)
    shifted = TemporalShift(4)(video)
    for frame in range(5):
        later = video[:, :2, frame + 1] if frame < 4 else torch.zeros(2, 2, 3, 3)
        earlier = video[:, 2:4, frame - 1] if frame else torch.zeros(2, 2, 3, 3)
        assert torch.equal(shifted[:, :2, frame], later)
        assert torch.equal(shifted[:, 2:4, frame], earlier)
    assert torch.equal(shifted[:, 4:], video[:, 4:])


@pytest.mark.parametrize(
    ("temporal", "sees_order"), [("conv", True), ("shift", True), ("none", False)]
)
def test_only_frames_on_their_own_ignore_the_order(temporal: str, sees_order: bool) -> None:
    torch.manual_seed(0)
    model = video_cnn(4, width=8, temporal=temporal).eval()  # type: ignore[arg-type]
    video = torch.rand(2, 1, 6, 8, 8)
    is_equal = torch.allclose(model(video), model(video.flip(2)), atol=1e-5)
    assert is_equal != sees_order


def test_levels_have_one_entry_per_frame() -> None:
    model = video_cnn(5, width=4).eval()
    outputs = Net(model, call, taps_for(model))({"video": torch.rand(2, 1, 6, 9, 9)})
    assert [tuple(level.shape) for level in outputs["features"]] == [
        (2, 4, 6, 9, 9),
        (2, 8, 6, 5, 5),
        (2, 16, 6, 3, 3),
    ]
    weight, bias = outputs["head"]
    torch.testing.assert_close(outputs["embedding"] @ weight.T + bias, outputs["logits"])


def test_number_of_parameters_is_that_of_the_docstring() -> None:
    for build in (video_cnn, modality_streams):
        count = sum(parameter.numel() for parameter in build(10).parameters())
        assert f"{count:,}" in (build.__doc__ or "")


def test_wrong_options_raise() -> None:
    with pytest.raises(ValueError, match="temporal: expected conv, shift or none, got 'lstm'"):
        video_cnn(3, temporal="lstm")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"groups: .*add up to the 2 channels.*got \[1, 2\]"):
        modality_streams(3, 2, [1, 2])
    with pytest.raises(ValueError, match="drop: 1 is out of range"):
        modality_streams(3, drop=1.0)


def test_dropped_modalities_are_zero_and_one_always_remains() -> None:
    torch.manual_seed(0)
    model = modality_streams(3, 3, [1, 2], drop=0.9)
    parts = model._dropped([torch.ones(500, 1, 2, 2), torch.ones(500, 2, 2, 2)])
    present = torch.stack([part.flatten(1).amax(1) for part in parts], 1)
    assert bool((present.sum(1) >= 1).all())
    # Both draws exceed 0.9 with probability 0.01.
    assert float((present.sum(1) == 1).float().mean()) > 0.3
    assert 0.3 < float(present[:, 0].mean()) < 0.7
    image = torch.rand(4, 3, 8, 8)
    model.eval()
    assert torch.equal(model(image), model(image))


def test_a_hallucinated_stream_reads_the_first_modality() -> None:
    model = modality_streams(3, 1, hallucinated=1).eval()
    inputs: list[torch.Tensor] = []
    streams = list(model.streams)  # type: ignore[arg-type]
    for stream in streams:
        assert isinstance(stream, nn.Module)
        stream.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    image = torch.rand(2, 1, 8, 8)
    assert model(image).shape == (2, 3)
    assert len(inputs) == 2
    assert all(torch.equal(value, image) for value in inputs)
