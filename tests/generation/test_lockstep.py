from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from instil.generation.lockstep import Lockstep, is_sharded, set_agreement
from tests.test_parity import on_two_ranks


def test_one_process_decides_by_itself() -> None:
    net = nn.Linear(2, 2)
    assert not is_sharded(net)
    lockstep = Lockstep([net, abs])
    assert lockstep.any(True)
    assert not lockstep.any(False)
    assert lockstep.all(True)
    assert not lockstep.all(False)


def test_processes_of_a_sharded_part_decide_together() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    others = True
    set_agreement(net[1], lambda flag: flag or others)
    assert is_sharded(net)
    assert not is_sharded(net[0])
    lockstep = Lockstep([abs, net])
    assert lockstep.any(False)
    others = False
    assert not lockstep.any(False)
    assert lockstep.all(True)
    assert not lockstep.all(False)


@pytest.mark.slow
def test_a_sharded_network_writes_the_texts_of_a_whole_one(tmp_path: Path) -> None:
    """Ranks have rows of other lengths, prompts of one token and texts that end earlier."""
    pytest.importorskip("transformers")
    from tests.generation import sharded_on_ranks

    ends = on_two_ranks("tests.generation.sharded_on_ranks", tmp_path / "texts.pt")
    for name, uses_cache in sharded_on_ranks.FAMILIES.items():
        parts = [sharded_on_ranks.part_of(process) for process in range(2)]
        net = sharded_on_ranks.net_of(name)
        expected = torch.cat([sharded_on_ranks.texts_of(net, part) for part in parts])
        assert torch.equal(ends[name], expected)
        lengths = (expected >= 0).sum(1)
        assert lengths[0] < lengths[1:].max()
        assert ends[f"{name} cache"].tolist() == [uses_cache] * 2
