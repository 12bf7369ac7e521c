from __future__ import annotations

import pytest
import torch

from instil.modules.reservoir import Reservoir


def filled(size: int, *counts: int) -> Reservoir:
    reservoir = Reservoir(size)
    reservoir.build({"x": torch.zeros(1, 1)})
    start = 0
    for count in counts:
        reservoir.add({"x": torch.arange(start, start + count).view(-1, 1).float()})
        start += count
    return reservoir


def test_the_first_rows_are_stored_in_order() -> None:
    reservoir = filled(5, 2, 1)
    assert reservoir.stored_x.flatten().tolist() == [0, 1, 2, 0, 0]
    drawn = reservoir.draw(torch.linspace(0, 0.999, 30), {})["x"]
    assert set(drawn.flatten().tolist()) == {0, 1, 2}


def test_every_row_is_stored_equally_often() -> None:
    """Share of each tenth of 20,000 rows in a memory of 2,000; the standard error is 0.7 %."""
    stored = filled(2000, 20_000).stored_x.flatten()
    assert len(stored.unique()) == 2000
    shares = torch.bincount((stored // 2000).long(), minlength=10) / 2000
    assert (shares - 0.1).abs().max() < 0.03


def test_the_choice_does_not_depend_on_the_batches() -> None:
    stored = [filled(8, *counts).stored_x for counts in ((60,), (1,) * 60, (7, 50, 3))]
    assert torch.equal(stored[0], stored[1])
    assert torch.equal(stored[0], stored[2])


def test_an_empty_memory_returns_the_default() -> None:
    default = torch.full((2, 1), 7.0)
    assert filled(3).draw(torch.zeros(2), {"x": default})["x"].tolist() == [[7.0], [7.0]]
    assert filled(3).is_filled() == 0
    assert filled(3, 1).is_filled() == 1


def test_the_content_of_a_stage_fills_longer_vectors() -> None:
    first = filled(3, 10)
    second = Reservoir(3)
    second.build({"x": torch.zeros(1, 2)})
    second.fill(first.content())
    assert second.seen == 10
    assert torch.equal(second.stored_x, torch.cat([first.stored_x, torch.zeros(3, 1)], 1))


def test_other_rows_are_errors() -> None:
    other = Reservoir(4)
    other.build({"x": torch.zeros(1, 1)})
    with pytest.raises(ValueError, match=r"memory: 'x' has the shape \(3, 1\)"):
        other.fill(filled(3, 10).content())
    with pytest.raises(ValueError, match="memory: has the entries seen, y"):
        other.fill({"y": torch.zeros(4, 1), "seen": torch.tensor(1)})
    with pytest.raises(ValueError, match=r"memory: 'x' of a sample has the shape \(2,\)"):
        other.add({"x": torch.zeros(1, 2)})
