"""Memory of a computation: what is there at once, without what was there before."""

from __future__ import annotations

import torch

from instil.tasks.bases.peak_memory import PeakMemory


def test_the_most_that_is_there_at_once() -> None:
    weight = torch.randn(100, 10)
    with PeakMemory() as memory:
        one = weight.T  # a view of what was there
        for _ in range(3):
            two = one * 2
            two = two.T
        three = torch.zeros(50)
    assert memory.peak == 2 * 4000, "the next product is there before the last one has gone"
    assert memory.now == 4000 + 200
    del two, three
    assert memory.now == 0
