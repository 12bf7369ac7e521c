"""Teachers of different classes, combined into one teacher of all classes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from instil.core import Batch, Net
from instil.objectives.logits.logit_mse import LogitMSE
from instil.schemes.offline.offline import Offline
from instil.teachers.amalgamated import Amalgamated, class_order
from instil.testing import check_teacher
from tests.nets import batch, net

NAMES = [["a", "c", "e", "g", "i"], ["j", "b", "d", "f", "h"]]


def test_contracts() -> None:
    check_teacher(lambda: Amalgamated([net(seed=1), net(4, seed=2)], NAMES, "abcdefghij"), batch())


def test_every_logit_is_in_the_place_of_its_class() -> None:
    one, two = net(seed=1), net(4, seed=2)
    outputs = Amalgamated([one, two], NAMES, "abcdefghij")(batch())
    for index, name in enumerate("abcdefghij"):
        member, names = (one, NAMES[0]) if name in NAMES[0] else (two, NAMES[1])
        assert torch.equal(
            outputs["logits"][:, index], member(batch())["logits"][:, names.index(name)]
        )
    assert torch.equal(outputs["members"][1]["logits"], two(batch())["logits"])


def test_members_may_know_unlike_many_classes() -> None:
    assert class_order([["dog"], ["cat", "bird"]], ["bird", "dog", "cat"]) == [2, 0, 1]


class Wide(nn.Module):
    """Student of ten classes."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


def test_a_student_learns_the_union() -> None:
    scheme = Offline(
        Net(Wide(), lambda model, rows: {"logits": model(rows["x"])}),
        Amalgamated([net(), net()], NAMES, "abcdefghij"),
        {"it": LogitMSE()},
    )
    scheme.prepare(batch())
    (update,) = scheme.step(batch())
    assert update.losses["it"] > 0


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            [["a", "b"], ["b", "c"]],
            "the class 'b' is a class of member 0 and of member 1. Expected one member per class",
        ),
        ([["a", "b"], ["cat"]], "the class 'cat' of member 1 is not a class of the student"),
        ([["a"], ["b"]], "no member has the class 'c'. Expected a member for each class, got a, b"),
    ],
)
def test_classes_that_do_not_add_up_raise_with_their_name(
    names: list[list[str]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Amalgamated([net(), net()], names, ["a", "b", "c"])


def test_members_are_held_to_their_names() -> None:
    rows: Batch = batch()
    with pytest.raises(ValueError, match="member 1 has 5 logits and 1 class names"):
        Amalgamated([net(), net()], [["a", "b", "c", "d", "e"], ["f"]], "abcdef")(rows)
    silent = Net(net().model, lambda model, rows: {"embedding": model(rows["x"])})
    with pytest.raises(ValueError, match="member 0 gives embedding, and no logits"):
        Amalgamated([silent], [["a"]], ["a"])(rows)
    with pytest.raises(ValueError, match="2 members have 1 lists of class names"):
        Amalgamated([net(), net()], [["a"]], ["a"])
