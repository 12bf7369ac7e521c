"""Sharded training of families of language models gives the weights of one process."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.test_parity import on_two_ranks


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_sharded_students_of_six_families(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("peft")
    from tests.engine import families_on_ranks

    two = on_two_ranks("tests.engine.families_on_ranks", tmp_path / "two.pt")
    one = families_on_ranks.all_trained()
    assert len(one) == 2 * len(families_on_ranks.FAMILIES) == 12
    far = {name: float((weights - two[name]).abs().max()) for name, weights in one.items()}
    assert max(far.values()) < 1e-5, far
    assert all(torch.isfinite(weights).all() for weights in one.values())
