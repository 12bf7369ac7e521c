from __future__ import annotations

import torch

from instil.functional.noise import box_muller


def test_is_normal_and_independent() -> None:
    values = box_muller({"index": torch.arange(200)}, (5, 9, 3), "stream")
    assert values.shape == (200, 5, 9, 3)
    assert values.isfinite().all()
    flat = values.flatten()
    assert abs(float(flat.mean())) < 0.02
    assert abs(float(flat.std()) - 1) < 0.02
    assert abs(float((flat.abs() < 1).float().mean()) - 0.6827) < 0.01
    assert (torch.corrcoef(values.flatten(1).T) - torch.eye(135)).abs().max() < 0.35


def test_belongs_to_the_sample_and_the_step() -> None:
    whole = box_muller({"index": torch.arange(6), "step": torch.tensor(2)}, (3,), "stream")
    assert torch.equal(
        box_muller({"index": torch.tensor([4, 1]), "step": torch.tensor(2)}, (3,), "stream"),
        whole[[4, 1]],
    )
    assert not torch.equal(
        box_muller({"index": torch.arange(6), "step": torch.tensor(3)}, (3,), "stream"), whole
    )
    assert not torch.equal(
        box_muller({"index": torch.arange(6), "step": torch.tensor(2)}, (3,), "stream 1"), whole
    )
