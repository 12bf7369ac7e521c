"""Bounds of options in constructors, as in recipes."""

from __future__ import annotations

from typing import Any

import pytest

from instil import KD, AttentionTransfer, Schedule


@pytest.mark.parametrize("temperature", [0, -1.0, float("nan"), Schedule(4.0, -1.0)])
def test_a_value_outside_of_its_bounds_is_named(temperature: Any) -> None:
    with pytest.raises(ValueError, match=r"^KD\.temperature: Expected a number above 0, got"):
        KD(temperature=temperature)
    with pytest.raises(ValueError, match=r"^KD\.temperature: Expected a number above 0, got"):
        KD(temperature)


def test_values_within_the_bounds() -> None:
    assert KD(temperature=1e-3).temperature == 1e-3
    assert KD(temperature=Schedule(4.0, 1.0)).temperature == Schedule(4.0, 1.0)
    assert AttentionTransfer().power == 2.0
