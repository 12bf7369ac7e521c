"""Outputs of a teacher that were computed in batches of other widths."""

from __future__ import annotations

import pytest
import torch

from instil.experiment.token_widths import resized, row_width


@pytest.mark.parametrize(
    ("name", "shape", "dims"), [("logits", (2, 6, 6), (1,)), ("attentions.0", (2, 6, 6, 6), (2, 3))]
)
def test_padding_is_added_and_cut(name: str, shape: tuple[int, ...], dims: tuple[int, ...]) -> None:
    values = torch.rand(shape)
    wider = resized(values, name, 6, 9)
    assert [wider.shape[dim] for dim in range(len(shape))] == [
        9 if dim in dims else size for dim, size in enumerate(shape)
    ]
    assert wider.sum() == pytest.approx(float(values.sum())), "new tokens are zeros"
    assert torch.equal(resized(wider, name, 9, 6), values)


def test_other_samples_have_no_width() -> None:
    image = {"image": torch.zeros(2, 3, 8, 8), "label": torch.zeros(2)}
    assert row_width(image) == 0
    assert row_width({"attention_mask": torch.ones(2, 4), "label": torch.ones(2, 4)}) == 4
    values = torch.rand(2, 3)
    assert resized(values, "logits", 0, 0) is values
