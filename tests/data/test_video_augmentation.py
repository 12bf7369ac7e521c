"""Augmentation of videos: the same change in all frames, and none without options."""

from __future__ import annotations

import torch

from instil.core import Batch
from instil.data.video_augmentation import VideoAugmentation, shifted_video


def batch(size: int = 40) -> Batch:
    video = torch.rand(size, 2, 6, 5, 7, generator=torch.Generator().manual_seed(0))
    return {"video": video, "index": torch.arange(size), "view": torch.zeros(size).long()}


def test_nothing_changes_without_options() -> None:
    assert torch.equal(VideoAugmentation()(batch())["video"], batch()["video"])


def test_all_frames_shift_in_the_same_way() -> None:
    video = batch()["video"]
    down, right = torch.arange(40) % 5, torch.arange(40) % 3
    shifted = shifted_video(video, down, right, 2)
    for row in range(40):
        rows, columns = int(down[row]) - 2, int(right[row]) - 2
        expected = torch.zeros_like(video[row])
        for y in range(5):
            for x in range(7):
                if 0 <= y - rows < 5 and 0 <= x - columns < 7:
                    expected[..., y, x] = video[row, ..., y - rows, x - columns]
        assert torch.equal(shifted[row], expected)


def test_about_half_of_the_videos_are_mirrored_or_reversed() -> None:
    video = batch()["video"]
    for option, axis in (("flip", 4), ("reverse", 2)):
        changed = VideoAugmentation(**{option: True})(batch())["video"]
        is_same = (changed == video).flatten(1).all(1)
        is_turned = (changed == video.flip(axis)).flatten(1).all(1)
        assert bool((is_same ^ is_turned).all())
        assert 10 < int(is_turned.sum()) < 30


def test_a_temporal_crop_keeps_the_order_and_the_number_of_frames() -> None:
    frames = torch.arange(6.0).view(1, 1, 6, 1, 1).expand(40, 1, 6, 1, 1)
    changed = VideoAugmentation(time_crop=0.6)(batch() | {"video": frames})["video"]
    order = changed.flatten(1)
    assert order.shape == (40, 6)
    assert bool((order.diff(dim=1) >= 0).all())
    lengths = order[:, -1] - order[:, 0] + 1
    assert lengths.min() <= 3
    assert lengths.max() == 6


def test_the_change_depends_on_seed_and_view_only() -> None:
    options = {"crop": 2, "flip": True, "time_crop": 0.5, "reverse": True}
    first, second = (VideoAugmentation(**options, seed=1) for _ in range(2))
    whole = first(batch())["video"]
    part = second({key: value[5:9] for key, value in batch().items()})["video"]
    assert torch.equal(whole[5:9], part)
    other = first(batch() | {"view": torch.ones(40).long()})["video"]
    assert not torch.equal(whole, other)
