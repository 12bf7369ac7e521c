"""Groups of options: a section of a recipe that becomes a dataclass."""

from __future__ import annotations

from typing import Any

import pytest

from instil.catalogue import describe
from instil.catalogue.signatures import with_defaults
from instil.core import Schedule
from instil.generation.options import Sampling
from instil.recipe.errors import RecipeError
from instil.recipe.options import check
from instil.schemes.language.on_policy import OnPolicy
from instil.schemes.language.sequence_level import SequenceLevel


def checked(scheme: Any, sampling: dict[str, Any]) -> Sampling:
    """Build the sampling options of a recipe."""
    sampling_option = check(scheme, {"sampling": sampling}, "scheme")["sampling"]
    assert isinstance(sampling_option, Sampling)
    return sampling_option


def test_a_section_becomes_the_dataclass() -> None:
    assert checked(OnPolicy, {"top_p": 0.9, "eos_token_id": [3, 5]}) == Sampling(
        top_p=0.9, eos_token_id=[3, 5]
    )


def test_options_that_are_left_out_are_those_of_the_scheme() -> None:
    assert checked(SequenceLevel, {"max_new_tokens": 8}) == Sampling(0.0, max_new_tokens=8)
    complete = with_defaults(SequenceLevel, {"sampling": {"max_new_tokens": 8}})["sampling"]
    assert complete["temperature"] == 0
    assert complete["max_new_tokens"] == 8
    assert with_defaults(SequenceLevel, {})["sampling"]["temperature"] == 0


def test_a_float_of_a_group_may_be_a_schedule() -> None:
    temperature = {"start": 1.0, "end": 0.5}
    assert checked(OnPolicy, {"temperature": temperature}).temperature == Schedule(1.0, 0.5)


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        ({"temprature": 1}, r"^scheme\.sampling\.temprature: .* temperature"),
        ({"top_p": 2}, r"^scheme\.sampling\.top_p: a number of at most 1 was expected, not 2"),
        (7, r"^scheme\.sampling: a mapping was expected, not 7$"),
    ],
)
def test_wrong_options_are_errors_with_their_path(sampling: Any, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        check(OnPolicy, {"sampling": sampling}, "scheme")


def test_the_description_of_a_method_has_one_entry_per_option_of_a_group() -> None:
    options = {option["name"]: option for option in describe("scheme", "sequence_level")["options"]}
    assert "sampling" not in options
    assert options["sampling.temperature"]["default"] == 0
    assert options["sampling.top_p"]["type"] == "float > 0 and <= 1"
    assert options["sampling.max_new_tokens"]["description"].startswith("maximum number of")


def test_fill_replaces_only_options_that_are_none() -> None:
    sampling = Sampling(eos_token_id=0)
    assert sampling.fill(7, 100) == Sampling(eos_token_id=0, vocabulary=100)
    assert Sampling().fill() == Sampling()
