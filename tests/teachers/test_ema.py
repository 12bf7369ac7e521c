"""Moving average of a network."""

from __future__ import annotations

import torch
from torch import nn

from instil.cards import has_tag
from instil.core import Net
from instil.teachers.ema import Ema
from instil.testing import check_teacher
from tests.nets import batch, net


def test_contracts() -> None:
    check_teacher(lambda: Ema(net()), batch())


def test_moves_by_one_minus_decay_towards_the_net() -> None:
    fast = net()
    teacher = Ema(fast, decay=0.9)
    start = [parameter.clone() for parameter in teacher.parameters()]
    with torch.no_grad():
        for parameter in fast.parameters():
            parameter.add_(1)
    for step in (1, 2, 3):
        teacher.follow(fast)
        for before, now in zip(start, teacher.parameters(), strict=True):
            assert torch.allclose(now, before + 1 - 0.9**step, atol=1e-6)


def test_small_steps_in_half_precision_add_up() -> None:
    fast = nn.Linear(2, 1).bfloat16()
    nn.init.ones_(fast.weight)
    teacher = Ema(fast, decay=0.99)
    nn.init.constant_(fast.weight, 1.25)
    for _ in range(250):
        teacher.follow(fast)
    # A training that continues has the average, not its rounded copy.
    restored = Ema(fast, decay=0.99)
    restored.load_state_dict(teacher.state_dict())
    for _ in range(250):
        restored.follow(fast, torch.tensor(0.99))
    weight = restored.net.model.weight
    assert weight.dtype == torch.bfloat16
    assert torch.allclose(weight.float(), torch.full((1, 2), 1.25), atol=0.01)


def test_is_a_copy_with_taps_of_its_own_and_says_that_it_changes() -> None:
    fast = net()
    teacher = Ema(fast)
    with torch.no_grad():
        fast.model.head.weight.zero_()
    assert teacher(batch())["logits"].abs().sum() > 0
    assert teacher(batch())["embedding"].abs().sum() > 0
    assert has_tag(teacher, "stateful")
    assert all(parameter.requires_grad for parameter in fast.parameters())
    assert not {id(p) for p in fast.parameters()} & {id(p) for p in teacher.parameters()}


def test_buffers_are_copied_and_not_averaged() -> None:
    fast = Net(nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4)))
    teacher = Ema(fast, decay=0.9)
    fast.train()(batch())
    teacher.follow(fast)
    assert torch.equal(teacher.net.model[1].running_mean, fast.model[1].running_mean)
    assert int(teacher.net.model[1].num_batches_tracked) == 1


def test_follows_without_a_graph() -> None:
    fast = net()
    teacher = Ema(fast)
    teacher.follow(fast)
    assert all(parameter.grad_fn is None for parameter in teacher.parameters())
