"""Outputs that are computed when they are read."""

from __future__ import annotations

import pytest

from instil.roles import LazyOutputs


class Made:
    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> str:
        self.times += 1
        return "made"


def test_a_role_is_there_before_it_is_made_and_is_made_once() -> None:
    make = Made()
    outputs = LazyOutputs({"hidden": 1}, {"logits": make})
    assert "logits" in outputs
    assert set(outputs) == {"hidden", "logits"}
    assert len(outputs) == 2
    assert make.times == 0
    assert [outputs["logits"], outputs.get("logits"), outputs.get("nothing", 5)] == [
        "made",
        "made",
        5,
    ]
    assert make.times == 1


def test_a_union_makes_nothing_and_shares_what_is_made_later() -> None:
    make = Made()
    outputs = LazyOutputs({}, {"logits": make})
    both = outputs | {"tap": 2}
    assert make.times == 0
    assert (both["logits"], outputs["logits"], both["tap"]) == ("made", "made", 2)
    assert make.times == 1
    assert (outputs | {"logits": 3})["logits"] == 3


@pytest.mark.parametrize(
    "copied",
    [
        lambda o: dict(o),
        lambda o: {**o},
        lambda o: dict(o.items()),
        lambda o: dict(zip(o, o.values(), strict=True)),
    ],
)
def test_copies_hold_values(copied) -> None:
    assert copied(LazyOutputs({"hidden": 1}, {"logits": Made()})) == {"hidden": 1, "logits": "made"}


def test_what_is_set_is_what_is_read() -> None:
    outputs = LazyOutputs({}, {"logits": Made()})
    outputs["logits"] = 7
    assert outputs["logits"] == 7
