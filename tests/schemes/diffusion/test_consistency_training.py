from __future__ import annotations

import pytest
import torch

from instil.functional.diffusion.times import random_interval
from instil.schemes.diffusion.consistency_training import ConsistencyTraining, num_intervals
from instil.testing import check_scheme
from tests.schemes.denoisers import batch, clocked, denoiser, matching, prepared


def test_contracts() -> None:
    check_scheme(lambda: ConsistencyTraining(denoiser(), matching(), last_times=6), batch)


def test_both_times_have_the_same_image_and_noise() -> None:
    it = prepared(ConsistencyTraining(denoiser(), matching(), first_times=3, last_times=3))
    _start, end = random_interval(clocked(), it.schedule, 3)
    sample = it.draw(clocked())
    _, target = it.forward_both(clocked() | {"progress": torch.tensor(0.0)})
    reached = it.schedule.add_noise(sample.clean, sample.noise, end)
    is_end = end == 0
    assert torch.allclose(target["denoised"][is_end], sample.clean[is_end])
    predicted = it.run_student(reached[~is_end], end[~is_end], sample.label[~is_end])["denoised"]
    assert torch.allclose(target["denoised"][~is_end], predicted, atol=1e-5)


def test_the_number_of_intervals_grows_as_a_root() -> None:
    numbers = [num_intervals(share, 2, 150) for share in (0.0, 0.25, 1.0)]
    # Of the paper, N(k) = ceil(sqrt(k / K ((s1 + 1)^2 - s0^2) + s0^2) - 1) + 1.
    assert numbers == [2, 76, 151]
    with pytest.raises(ValueError, match=r"scheme.last_times: less than"):
        ConsistencyTraining(denoiser(), matching(), first_times=9, last_times=4)
