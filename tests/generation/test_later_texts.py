"""Texts of later steps: which weights generate them, in which order, and errors."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import nn

from instil.core import Batch, Net
from instil.generation.later_texts import LaterTexts
from instil.generation.rollout_options import Rollouts
from instil.generation.rollout_source import StudentCopy

STUDENT = Net(nn.Linear(1, 1))


class Source:
    """Source whose texts are the version of its weights."""

    def __init__(self) -> None:
        self.version = -1
        self.pushed: list[int] = []
        self.may_generate = threading.Event()
        self.may_generate.set()

    def push(self, student: Net, version: int) -> None:
        self.version = version
        self.pushed.append(version)

    def close(self) -> None:
        self.pushed.clear()

    def generate(self, batch: Batch) -> Batch:
        assert self.may_generate.wait(5)
        assert threading.current_thread() is not threading.main_thread()
        return batch | {"version": torch.tensor(self.version)}


def batch_of(step: int, row: int = 0) -> Batch:
    return {"step": torch.tensor(step), "index": torch.tensor([10 * step + row])}


def expected_version(step: int, staleness: int, every: int, length: int) -> int:
    """Latest push whose request covers a step, by trying all pushes of its epoch."""
    first = step - step % length
    requested: dict[int, int] = {}
    for push in range(first, first + length, every):
        for later in range(push, min(push + staleness, first + length - 1) + 1):
            requested.setdefault(later, push)
    return requested[step]


@pytest.mark.parametrize(("staleness", "every"), [(0, 1), (1, 1), (2, 1), (3, 2), (4, 4), (9, 3)])
def test_versions_depend_on_options_and_step_only(staleness: int, every: int) -> None:
    source, length = Source(), 7
    options = Rollouts(staleness, every)
    texts = LaterTexts(options, source, STUDENT, lambda batch: batch)
    ages = []
    for step in range(2 * length):
        ends = step - step % length + length
        window = range(step, min(step + staleness + 1, ends))
        texts.begin(step % length, [[batch_of(one)] for one in window])
        text = texts.take(batch_of(step))
        assert text is not None
        assert int(text["index"]) == 10 * step
        version = int(text["version"])
        assert version == expected_version(step, staleness, every, length)
        ages.append(step - version)
    assert max(ages) <= staleness
    metrics = texts.metrics()
    assert metrics["staleness"] == pytest.approx(sum(ages) / len(ages))
    assert texts.metrics() == {}


def without_second_step(batch: Batch) -> Batch | None:
    """Rows of all steps but the second one."""
    return None if int(batch["step"]) == 1 else batch


def test_only_steps_that_need_texts_have_them_and_micro_batches_keep_their_order() -> None:
    texts = LaterTexts(Rollouts(2), Source(), STUDENT, without_second_step)
    steps = [[batch_of(step, row) for row in range(2)] for step in range(3)]
    texts.begin(0, steps)
    texts_of_batches: list[Any] = [texts.take(batch) for step in steps for batch in step]
    assert texts_of_batches[2:4] == [None, None]
    assert [int(text["index"]) for text in texts_of_batches if text is not None] == [0, 1, 20, 21]


def test_training_goes_on_while_a_text_is_generated() -> None:
    source = Source()
    texts = LaterTexts(Rollouts(1), source, STUDENT, lambda batch: batch)
    source.may_generate.clear()
    texts.begin(0, [[batch_of(0)], [batch_of(1)]])
    source.may_generate.set()
    assert texts.take(batch_of(0)) is not None


def test_an_error_of_the_source_reaches_the_step() -> None:
    class Broken(Source):
        def generate(self, batch: Batch) -> Batch:
            raise OSError("the disk is full")

    texts = LaterTexts(Rollouts(1), Broken(), STUDENT, lambda batch: batch)
    texts.begin(0, [[batch_of(0)]])
    with pytest.raises(OSError, match="disk is full"):
        texts.take(batch_of(0))


def test_a_checkpoint_holds_the_texts_that_no_step_has_taken() -> None:
    source = Source()
    texts = LaterTexts(Rollouts(3), source, STUDENT, lambda batch: batch)
    texts.begin(0, [[batch_of(step)] for step in range(4)])
    texts.take(batch_of(0))
    resumed = LaterTexts(Rollouts(3), Source(), STUDENT, lambda batch: batch)
    resumed.restore(texts.state())
    resumed.begin(1, [[batch_of(step)] for step in range(1, 5)])
    text = resumed.take(batch_of(1))
    assert text is not None
    assert int(text["version"]) == 0
    # Steps whose texts a checkpoint does not hold get texts of the current weights.
    other = LaterTexts(Rollouts(3), Source(), STUDENT, lambda batch: batch)
    other.begin(1, [[batch_of(step)] for step in range(1, 5)])
    text = other.take(batch_of(1))
    assert text is not None
    assert int(text["version"]) == 1


def test_a_copy_keeps_its_weights_until_a_push_and_shares_frozen_ones() -> None:
    student = Net(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))
    student.model[0].bias.requires_grad_(False)
    before = student.model[0].weight.detach().clone()
    source = StudentCopy(student, lambda net, batch: batch | net(batch))
    with torch.no_grad():
        student.model[0].weight.add_(1)
        student.model[1].running_mean.add_(1)
    assert torch.equal(source.net.model[0].weight, before)
    assert source.net.model[0].bias is student.model[0].bias
    source.push(student, 1)
    student.eval()
    batch = {"x": torch.randn(3, 2)}
    assert torch.equal(source.generate(batch)["logits"], student(batch)["logits"])
    assert not any(weight.requires_grad for weight in source.net.parameters())


def test_a_server_has_the_weights_of_one_process() -> None:
    options = Rollouts(server="vllm", url="http://x/v1", folder="weights")
    texts = LaterTexts(options, Source(), STUDENT, lambda batch: batch)
    texts.check_processes(1)
    with pytest.raises(ValueError, match=r"scheme\.rollouts\.server: .* one process, got 2"):
        texts.check_processes(2)


def test_a_push_that_comes_too_rarely_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"push_every: .* Expected at most 2 \(staleness\), got 3"):
        Rollouts(staleness=2, push_every=3)
