"""The student sees visible tubes only; the teacher sees whole clips."""

from __future__ import annotations

import pytest
import torch

from instil.core import Batch, Net
from instil.functional.hidden_squares import hide_squares, tube_mask
from instil.networks.video_cnn import video_cnn
from instil.objectives.features.mvd import MVD
from instil.objectives.logits.kd import KD
from instil.schemes.offline.masked_video import MaskedVideo
from instil.tasks.video_classification import call
from instil.teachers.frozen import Frozen
from instil.testing import check_scheme


def batch(seed: int = 0, size: int = 8) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    return {
        "video": torch.rand(size, 1, 3, 6, 7, generator=generator),
        "label": torch.arange(size) % 3,
        "index": torch.arange(size),
    }


def net(width: int, seed: int = 0) -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = video_cnn(3, width=width, stages=1)
    # BatchNorm would couple the samples.
    model.stages[0][1] = torch.nn.Identity()
    return Net(model, call, {"features": ["stages.0"]})


def scheme(ratio: float = 0.9, patch: int = 2) -> MaskedVideo:
    objectives = {"mvd": MVD(), "kd": KD()}
    return MaskedVideo(net(2), Frozen(net(3, 1)), objectives, ratio, patch)


def test_contracts() -> None:
    check_scheme(lambda: scheme(ratio=0.5), lambda step: batch(step, 16))


def test_only_the_student_misses_the_hidden_tubes() -> None:
    ours, clips = scheme(ratio=0.75), batch()
    student, teacher = ours.forward_both(clips)
    mask = student["tube_mask"]
    assert ours.teacher is not None
    assert torch.equal(teacher["logits"], ours.teacher(clips)["logits"])
    seen = clips["video"].clone()
    for n in range(8):
        mean = clips["video"][n, 0].mean()
        seen[n, 0, :, mask[n] == 1] = mean
    torch.testing.assert_close(student["logits"], ours.student({"video": seen})["logits"])


def test_every_sample_has_the_same_number_of_hidden_tubes() -> None:
    mask = tube_mask(torch.rand(20, 3, 4), 0.7, 5)
    assert mask.shape == (20, 15, 20)
    tubes = mask.unflatten(2, (4, 5)).unflatten(1, (3, 5)).mean((2, 4))
    assert set(tubes.unique().tolist()) == {0.0, 1.0}
    assert tubes.sum((1, 2)).tolist() == [8.0] * 20
    # One tube is always visible, and one hidden.
    assert float(tube_mask(torch.rand(1, 2, 2), 0.99, 1).sum()) == 3
    assert float(tube_mask(torch.rand(1, 2, 2), 0.01, 1).sum()) == 1


def test_tubes_depend_on_seed_step_and_index() -> None:
    ours, clips = scheme(ratio=0.5), batch()

    def masks(**clock: int) -> torch.Tensor:
        entries = {key: torch.tensor(value) for key, value in clock.items()}
        mask: torch.Tensor = ours.forward_both(clips | entries)[0]["tube_mask"]
        return mask

    assert torch.equal(masks(step=1), masks(step=1))
    assert not torch.equal(masks(step=1), masks(step=2))
    assert not torch.equal(masks(seed=1), masks(seed=2))
    assert not torch.equal(masks(step=1)[0], masks(step=1)[1])


def test_hidden_pixels_have_the_mean_of_their_channel() -> None:
    video = torch.arange(8.0).view(1, 2, 1, 2, 2)
    mask = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    expected = torch.tensor([1.5, 1.0, 2.0, 3.0, 5.5, 5.0, 6.0, 7.0]).view_as(video)
    assert torch.equal(hide_squares(video, mask), expected)


def test_a_student_that_reads_another_key_misses_tubes_of_that_key() -> None:
    ours = scheme(ratio=0.5)
    student, _ = ours.forward_both(batch())
    ours.student.call = _Renamed()  # type: ignore[assignment]
    renamed, _ = ours.forward_both(batch() | {"grey": batch()["video"]})
    torch.testing.assert_close(renamed["logits"], student["logits"])


class _Renamed:
    reads = {"video": "grey"}  # noqa: RUF012

    def __call__(self, model: torch.nn.Module, inputs: Batch) -> Batch:
        return call(model, inputs | {"video": inputs["grey"]})


def test_images_and_large_tubes_are_refused() -> None:
    ours = scheme(patch=4)
    with pytest.raises(ValueError, match=r"scheme\.patch: a square is too large. Expected at most"):
        ours.forward_both(batch())
    images = batch() | {"video": torch.rand(8, 1, 6, 7)}
    ours.teacher = None
    with pytest.raises(ValueError, match="scheme: squares are hidden in clips"):
        ours.forward_both(images)
