"""Training of families of language models on several ranks gives the weights of one process."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch

from tests.test_parity import on_ranks

CASES = [
    (2, 0.5, "sharded"),
    (4, 0.5, "sharded"),
    (4, 0.5, "replicated"),
    (4, 0.0, "sharded"),
    (2, 0.0, "replicated"),
    (4, 1.0, "sharded"),
    (2, 1.0, "replicated"),
]
"""Ranks, share of texts that the student writes, and layout of the weights."""


@cache
def trained_by_one(share: float) -> dict[str, torch.Tensor]:
    from tests.engine import families_on_ranks

    return families_on_ranks.all_trained(share, is_sharded=False)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(("size", "share", "layout"), CASES)
def test_students_of_six_families(size: int, share: float, layout: str, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("peft")
    out = tmp_path / "several.pt"
    several = on_ranks(size, "tests.engine.families_on_ranks", out, str(share), layout)
    one = trained_by_one(share)
    assert len(one) == 12
    far = {name: float((weights - several[name]).abs().max()) for name, weights in one.items()}
    assert max(far.values()) < 1e-5, far
    assert all(torch.isfinite(weights).all() for weights in one.values())
