from __future__ import annotations

import pytest
import torch

from instil.core import Batch
from instil.modules.memory import Bank, Memory, Queue


def drawing(index: list[int], step: int = 0) -> Batch:
    return {"index": torch.tensor(index), "step": torch.tensor(step), "seed": torch.tensor(0)}


@pytest.mark.parametrize("memory", [Queue(12, {"a": 4, "b": 6}), Bank(12, {"a": 4, "b": 6})])
def test_rows_start_as_the_same_unit_vectors_in_every_run(memory: Memory) -> None:
    again = type(memory)(12, {"a": 4, "b": 6})
    for name, width in (("a", 4), ("b", 6)):
        assert memory[name].shape == (12, width)
        assert torch.allclose(memory[name].square().sum(1), torch.ones(12))
        assert torch.equal(memory[name], again[name])
    same = type(memory)(12, {"a": 4, "b": 4})
    assert torch.equal(same["a"], same["b"])


def test_a_queue_agrees_with_lists() -> None:
    """Three groups with a list each, whatever comes in whatever number."""
    queue, lists = Queue(12, {"row": 1}, groups=3), [[-1] * 4 for _ in range(3)]
    begin = [0, 0, 0]
    generator = torch.Generator().manual_seed(0)
    owner = 0
    for index in (5, 0, 2, 30, 3, 1, 7):
        group = torch.randint(0, 3, (index,), generator=generator)
        owners = torch.arange(owner, owner + index)
        queue.push(owners, {"row": owners[:, None].float()}, group)
        for one, which in zip(owners.tolist(), group.tolist(), strict=True):
            lists[which][begin[which]] = one
            begin[which] = (begin[which] + 1) % 4
        owner += index
        assert queue.owner.view(3, 4).tolist() == lists
        written = queue.owner >= 0
        assert torch.equal(queue["row"][written, 0], queue.owner[written].float())
    assert queue.position.tolist() == begin


def test_rows_without_an_owner_replace_the_oldest_rows() -> None:
    queue = Queue(3, {"row": 1})
    before = queue["row"].clone()
    queue.push(None, {"row": torch.tensor([[5.0], [6.0]])})
    assert queue["row"][:, 0].tolist() == [5, 6, before[2, 0]]
    assert queue.owner.tolist() == [0, 0, -1]
    assert queue.owner.dtype == torch.int64


def test_a_queue_is_shared_out_evenly() -> None:
    with pytest.raises(ValueError, match="10 rows cannot be shared out among 3 groups"):
        Queue(10, {"row": 1}, groups=3)


def test_a_bank_moves_with_momentum_and_takes_the_last_of_a_sample() -> None:
    bank = Bank(24, {"student": 8})
    before = bank["student"].clone()
    rows = torch.nn.functional.normalize(torch.randn(3, 8), dim=1)
    bank.move(torch.tensor([4, 9, 4]), {"student": rows}, 0.75)
    for index, row in ((9, 1), (4, 2)):
        moved = 0.75 * before[index] + 0.25 * rows[row]
        assert torch.allclose(
            bank["student"][index], moved / moved.square().sum().sqrt(), atol=1e-6
        )
    others = [n for n in range(24) if n not in (4, 9)]
    assert torch.equal(bank["student"][others], before[others])


@pytest.mark.parametrize("kind", [Queue, Bank])
def test_a_sample_does_not_draw_itself(kind: type[Memory]) -> None:
    memory = kind(24, {"row": 2})
    memory.owner = torch.arange(24)
    drawn_rows = set()
    for step in range(50):
        rows = memory.draw(drawing(list(range(24)), step), 5, "rows")
        assert rows.shape == (24, 5)
        assert not (memory.owner[rows] == torch.arange(24)[:, None]).any()
        drawn_rows |= set(rows.flatten().tolist())
    assert drawn_rows == set(range(24))
    assert torch.equal(
        memory.draw(drawing([7, 3], 1), 5, "rows")[1], memory.draw(drawing([3], 1), 5, "rows")[0]
    )
    assert memory.draw(drawing([1, 2]), 99, "rows").shape == (2, 24)


def test_a_bank_names_an_index_that_it_does_not_have() -> None:
    with pytest.raises(
        ValueError,
        match="the bank has 24 rows and the batch holds index 24; size is the number of samples",
    ):
        Bank(24, {"row": 2}).draw(drawing([3, 24]), 5, "rows")
