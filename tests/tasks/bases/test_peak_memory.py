"""Peak memory of a computation, without the tensors that existed before."""

from __future__ import annotations

import torch

from instil.tasks.bases.peak_memory import PeakMemory


def test_peak_memory_is_the_largest_size_at_once() -> None:
    weight = torch.randn(100, 10)
    with PeakMemory() as memory:
        one = weight.T  # a view of what was there
        for _ in range(3):
            two = one * 2
            two = two.T
        three = torch.zeros(50)
    assert memory.peak == 2 * 4000, "the next product exists before the last one is freed"
    assert memory.now == 4000 + 200
    del two, three
    assert memory.now == 0


def test_a_sparse_tensor_is_counted_by_its_indices_and_values() -> None:
    indices = torch.tensor([[0, 2]])
    with PeakMemory() as memory:
        values = torch.ones(2, 100)
        sparse = torch.sparse_coo_tensor(indices, values, (3, 100), check_invariants=True)
        memory.exclude(sparse)
    assert memory.peak >= 800
