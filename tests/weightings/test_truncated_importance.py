from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from instil.weightings.truncated_importance import TruncatedImportance, truncated_ratios


def batch(token: list[list[int]], old: list[list[float]]) -> dict[str, Any]:
    ids = torch.tensor(token)
    return {"token": ids, "valid": ids >= 0, "log_probability": torch.tensor(old).log()}


def test_weights_of_whole_texts_are_products_of_ratios_below_the_cap() -> None:
    logits = torch.tensor([[[0.5, 0.5], [0.8, 0.2], [0.1, 0.9]]]).log().expand(2, -1, -1)
    text = batch([[0, 0, -100], [1, 1, 1]], [[0.4, 0.5, 1.0], [0.5, 0.4, 0.6]])
    weights = TruncatedImportance(cap=1.9)({"logits": logits}, {}, text)
    first, second = min(0.5 / 0.4 * 0.8 / 0.5, 1.9), 1.0 * 0.2 / 0.4 * 0.9 / 0.6
    assert first == 1.9
    assert weights[0].tolist() == pytest.approx([first] * 3)
    assert weights[1].tolist() == pytest.approx([second] * 3)


def test_weights_of_tokens_do_not_depend_on_other_tokens() -> None:
    new, old = torch.tensor([[0.5, 0.1, 0.9]]).log(), torch.tensor([[0.25, 0.2, 0.3]]).log()
    mask = torch.tensor([[True, True, False]])
    assert truncated_ratios(new, old, mask, 3.0, "token")[0].tolist() == pytest.approx([2, 0.5, 1])


def test_text_of_the_data_has_weight_1() -> None:
    weights = TruncatedImportance()({"logits": torch.randn(1, 2, 5)}, {}, {})
    assert torch.equal(weights, torch.ones(1, 2))


def test_padding_of_the_head_has_no_probability() -> None:
    weighting = TruncatedImportance(level="token")
    weighting.vocabulary = 2
    logits = torch.tensor([[[0.0, 0.0, math.log(9.0)]]])
    assert weighting({"logits": logits}, {}, batch([[0]], [[0.5]])).item() == pytest.approx(1)
