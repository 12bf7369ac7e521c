"""The losses agree with the authors' numbers."""

from __future__ import annotations

from typing import Any

import pytest

from tests.golden.cases import HERE, adapters, check, declined, index

CASES = HERE / "cases"


@pytest.mark.parametrize("entry", index(CASES), ids=lambda entry: entry["case"])
def test_agrees_with_the_authors_code(entry: dict[str, Any]) -> None:
    result = check(CASES, entry, adapters(), declined())
    if result.status == "declined":
        pytest.skip(result.note)
    assert result.status == "passed", f"{result.note} {result.errors}"


def test_no_more_than_one_case_in_ten_is_declined() -> None:
    assert len(declined()) * 10 <= len(index(CASES))
