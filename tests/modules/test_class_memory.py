"""Sampled rows of memories with one queue per class."""

from __future__ import annotations

import torch

from instil.modules.class_memory import class_queues, draw_class_rows
from instil.modules.memory import Queue

CLASSES, SIZE = 3, 40


def memory() -> Queue:
    queue = class_queues([torch.randn(2, 5, 4, 4)], CLASSES, SIZE)[0]
    assert isinstance(queue, Queue)
    return queue


def test_a_memory_has_rows_of_the_channels_for_every_class() -> None:
    assert memory()["teacher"].shape == (CLASSES * SIZE, 5)


def test_rows_have_the_same_positions_in_every_class_and_change_with_the_step() -> None:
    queue = memory()
    drawn = []
    for step in range(2):
        clock = {"seed": torch.tensor(0), "step": torch.tensor(step)}
        drawn.append(draw_class_rows(queue, 12, clock, "test").view(CLASSES, -1))
    for rows in drawn:
        positions = rows - torch.arange(CLASSES)[:, None] * SIZE
        assert rows.shape == (CLASSES, 5)
        assert torch.equal(positions[0], positions[1])
        assert torch.equal(positions[0], positions[2])
        assert len(positions[0].unique()) == 5
        assert 0 <= positions.min() <= positions.max() < SIZE
    assert not torch.equal(drawn[0], drawn[1])


def test_no_more_rows_are_drawn_than_there_are() -> None:
    rows = draw_class_rows(memory(), 10**6, {}, "test")
    assert rows.sort().values.equal(torch.arange(CLASSES * SIZE))
