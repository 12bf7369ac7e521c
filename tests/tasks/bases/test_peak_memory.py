"""Memory of a computation: what is there at once, without what was there before."""

from __future__ import annotations

import torch

from instil.tasks.bases.peak_memory import Held


def test_the_most_that_is_there_at_once() -> None:
    weight = torch.randn(100, 10)
    with Held() as held:
        one = weight.T  # a view of what was there
        for _ in range(3):
            two = one * 2
            two = two.T
        three = torch.zeros(50)
    assert held.most == 2 * 4000, "the next product is there before the last one has gone"
    assert held.now == 4000 + 200
    del two, three
    assert held.now == 0
