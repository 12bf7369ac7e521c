from __future__ import annotations

import re

import pytest

from instil.functional.choices import require_choice


def test_a_value_of_the_list_passes() -> None:
    require_choice("form", "paper", ("code", "paper"))


@pytest.mark.parametrize(("value", "hint"), [("papr", " Did you mean paper?"), ("x", "")])
def test_another_value_is_an_error_that_lists_the_choices(value: str, hint: str) -> None:
    message = f"form: unknown value. Expected one of code, paper, got '{value}'.{hint}"
    with pytest.raises(ValueError, match=re.escape(message)):
        require_choice("form", value, ("code", "paper"))
