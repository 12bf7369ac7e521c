"""Unknown keyword arguments of objectives, schemes, teachers, weightings and balances."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from instil import catalogue
from instil.core import Objective
from instil.objectives.logits.kd import KD


class Strict(Objective):
    def __init__(self, size: int = 1) -> None:
        super().__init__()
        self.size = [1][size]


@pytest.mark.parametrize("kind", ["objective", "scheme", "teacher", "weighting", "balance"])
def test_every_method_names_the_closest_option(kind: str) -> None:
    num_checked = 0
    for name in catalogue.names(kind):
        method: Callable[..., Any] = catalogue.find(kind, name)
        parameters = inspect.signature(method).parameters
        options = [option for option in parameters if len(option) > 4]
        variadic = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        if not options or variadic:
            continue
        misspelled = options[-1][:-1] + "_"
        with pytest.raises(TypeError, match=rf"\w+\.{misspelled}: unknown option\.") as error:
            method(**{misspelled: 1})
        assert str(error.value).endswith(f"Did you mean {options[-1]}?")
        num_checked += 1
    assert num_checked


def test_the_message_is_one_sentence_per_fact() -> None:
    with pytest.raises(TypeError) as error:
        KD(temprature=2)  # type: ignore[call-arg]
    listed = ", ".join(inspect.signature(KD).parameters)
    expected = f"KD.temprature: unknown option. KD has {listed}. Did you mean temperature?"
    assert str(error.value) == expected


def test_other_errors_of_a_constructor_stay() -> None:
    with pytest.raises(TypeError, match="list indices must be integers"):
        Strict(size="a")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"unknown option\. Strict has size\.$"):
        Strict(unrelated=1)  # type: ignore[call-arg]


def test_signatures_are_those_of_the_class() -> None:
    assert list(inspect.signature(Strict).parameters) == ["size"]
    assert pickle.loads(pickle.dumps(KD(3))).temperature == 3
