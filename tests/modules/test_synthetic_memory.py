from __future__ import annotations

import torch

from instil.modules.synthetic_memory import SyntheticMemory
from tests.nets import timed


def rows(first: int, size: int) -> dict[str, torch.Tensor]:
    values = torch.arange(first, first + size)
    return {"image": values.float().view(-1, 1, 1, 1).expand(-1, 1, 2, 2), "target": values}


def test_the_last_rows_stay_and_names_keep_together() -> None:
    memory = SyntheticMemory(5, **rows(0, 1))
    assert int(memory.filled) == 0
    memory.push(**rows(1, 3))
    assert int(memory.filled) == 3
    memory.push(**rows(4, 4))
    assert int(memory.filled) == 5
    assert sorted(memory["target"].tolist()) == [3, 4, 5, 6, 7]
    memory.push(**rows(8, 9))
    assert sorted(memory["target"].tolist()) == [12, 13, 14, 15, 16]
    assert torch.equal(memory["image"][:, 0, 1, 1].long(), memory["target"])


def test_only_what_was_pushed_is_drawn_and_the_draw_is_of_the_sample() -> None:
    memory = SyntheticMemory(100, **rows(0, 1))
    assert memory.draw(timed(), "rows")["target"].tolist() == [0] * 16
    memory.push(**rows(1, 30))
    batch = timed(3)
    drawn = memory.draw(batch, "rows")["target"]
    assert set(drawn.tolist()) <= set(range(1, 31))
    assert len(set(drawn.tolist())) > 5
    later = batch | {"index": batch["index"][8:], "x": batch["x"][8:]}
    assert torch.equal(memory.draw(later, "rows")["target"], drawn[8:])
    assert not torch.equal(memory.draw(timed(4), "rows")["target"], drawn)


def test_buffers_may_be_allocated_after_construction() -> None:
    memory = SyntheticMemory(5)
    assert memory.names == ()
    assert not memory.state_dict()
    memory.allocate(**rows(0, 1))
    assert list(memory.state_dict()) == list(SyntheticMemory(5, **rows(0, 1)).state_dict())
    assert int(memory.filled) == 0
