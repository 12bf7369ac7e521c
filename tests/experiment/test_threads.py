"""One thread if more do not help, all if they do; ``OMP_NUM_THREADS`` decides if it is set."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from instil.experiment import threads
from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.schemes.offline.offline import Offline
from tests.nets import batch, net


@pytest.fixture
def choose(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Call ``choose_num_threads`` for four threads, with the seconds of one thread and of all."""
    before, num_threads = torch.get_num_threads(), [4]
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: num_threads[0])
    monkeypatch.setattr(torch, "set_num_threads", lambda count: num_threads.__setitem__(0, count))

    def chosen(one: float, four: float) -> int:
        def seconds(ask: Any, count: int) -> float:
            num_threads[0] = count
            return one if count == 1 else four

        monkeypatch.setattr(threads, "_seconds", seconds)
        scheme = Offline(net(), None, {"cross_entropy": CrossEntropy()})
        return threads.choose_num_threads(scheme, batch())

    yield chosen
    torch.set_num_threads(before)


def test_the_faster_one(choose: Any) -> None:
    assert choose(1.0, 0.5) == 4
    assert choose(1.0, 2.0) == 1
    assert choose(1.0, 0.95) == 1, "not clearly faster"


def test_small_nets_get_one_thread(choose: Any) -> None:
    assert choose(0.01, 0.001) == 1


def test_an_explicit_number_of_threads_is_used(
    choose: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert choose(1.0, 9.0) == 4


def test_trying_leaves_no_gradient_and_no_random_number() -> None:
    scheme = Offline(net(), None, {"cross_entropy": CrossEntropy()})
    state = torch.get_rng_state()
    seconds = threads._seconds(lambda: scheme.student(batch()), torch.get_num_threads())
    assert seconds > 0
    assert all(parameter.grad is None for parameter in scheme.parameters())
    assert torch.equal(torch.get_rng_state(), state)
