"""Items of a user's loader: types, names, and iterators that can be read only once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from instil.items.loader_items import OneShotLoader, as_loader, named_batch

NAMES = ("image", "label")


class Pair(NamedTuple):
    label: int
    image: int


class Unrelated(NamedTuple):
    x: int
    y: int


@dataclass
class Sample:
    image: Tensor


def test_looks_at_the_first_item_do_not_drop_it() -> None:
    loader = OneShotLoader(iter(range(3)))
    assert [next(iter(loader)) for _ in range(3)] == [0, 0, 0]
    assert list(loader) == [0, 1, 2]
    assert list(loader) == []


def test_only_what_can_be_read_once_is_wrapped() -> None:
    batches = [torch.zeros(1)]
    assert as_loader(batches) is batches
    once = as_loader(iter(batches))
    assert isinstance(once, OneShotLoader)
    assert as_loader(once) is once


@pytest.mark.parametrize(
    "item",
    [
        {"image": 1, "label": 2},
        (1, 2),
        [1, 2],
        Pair(label=2, image=1),
        Unrelated(x=1, y=2),
    ],
)
def test_every_form_has_the_same_names(item: Any) -> None:
    assert named_batch(item, NAMES) == {"image": 1, "label": 2}


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (Sample(torch.zeros(1)), r"^loader: a batch is a Sample\. Expected a dict, a tensor"),
        ((np.zeros(1), 0), r"^loader: 'image' is a NumPy ndarray\. Expected a tensor"),
        ((1, 2, 3), r"^loader: a batch has 3 values\. .* names=\('image', 'label', 'index'\)"),
    ],
)
def test_other_items_are_errors(item: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        named_batch(item, NAMES)
