"""Interactions of users and items as training, validation and test data."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from instil.core import UNLABELLED
from instil.data.label_kinds import GradedData
from instil.data.splits import HOLD_OUT_SEED, Splits

MIN_ITEMS = 3
"""Smallest number of items of a user: one each for training, validation and test."""


def interaction_splits(
    user: Sequence[int] | Tensor,
    item: Sequence[int] | Tensor,
    grade: Sequence[float] | Tensor | None = None,
    held_out: int = 1,
) -> Splits:
    """Hold out items of each user, at random, for validation and for test.

    A sample is a user, in all three parts. An item of the training data does not count in the
    other parts (-100), and one of the validation data does not count in the test. Held-out items
    have grade 0 in the training data: a recommender does not know them.

    Args:
        user: index of the user of each interaction.
        item: index of the item of each interaction.
        grade: grade > 0 of each interaction; None for 1.
        held_out: number of items of each user for validation, and for test.

    Raises:
        ValueError: for another number of items or grades, and for a user with too few items.
    """
    user = torch.as_tensor(user, dtype=torch.int64)
    item = torch.as_tensor(item, dtype=torch.int64)
    grade = torch.ones(len(user)) if grade is None else torch.as_tensor(grade).float()
    if not len(user) == len(item) == len(grade):
        raise ValueError(
            f"interactions: {len(user)} users, {len(item)} items and {len(grade)} grades. Expected "
            "the same number"
        )
    if not len(user):
        raise ValueError("interactions: there are none. Expected at least one user with items")
    table = torch.zeros(int(user.max()) + 1, int(item.max()) + 1)
    table[user, item] = grade
    _check_counts((table > 0).sum(1), held_out)
    generator = torch.Generator().manual_seed(HOLD_OUT_SEED)
    order = torch.rand(table.shape, generator=generator).masked_fill(table == 0, 2).argsort(1)
    test = torch.zeros_like(table, dtype=torch.bool).scatter(1, order[:, :held_out], True)
    second = order[:, held_out : 2 * held_out]
    validation = torch.zeros_like(test).scatter(1, second, True)
    train_label = table.masked_fill(test | validation, 0.0)
    is_train = train_label > 0
    parts = (
        train_label,
        table.masked_fill(test, 0.0).masked_fill(is_train, UNLABELLED),
        table.masked_fill(is_train | validation, UNLABELLED),
    )
    users = torch.arange(len(table))
    facts = {"users": len(table)}
    train, held, final = (GradedData({"user": users}, label, facts) for label in parts)
    return Splits(train, held, final, train.classes, train.kind)


def _check_counts(counts: Tensor, held_out: int) -> None:
    too_few = counts < 2 * held_out + 1
    if too_few.any():
        index = int(too_few.nonzero()[0])
        raise ValueError(
            f"interactions: {int(too_few.sum())} of {len(counts)} users have too few items (user "
            f"{index} has {int(counts[index])}). Expected at least {2 * held_out + 1}: "
            f"{held_out} for validation, {held_out} for test, and one for training. Raise "
            "min_items or lower held_out"
        )
