"""Processes of a training join the others, and leave them if no error ends them."""

from pathlib import Path

import pytest

from tests.test_parity import on_two_ranks


@pytest.mark.slow
@pytest.mark.parametrize("end", ["fails", "ends"])
def test_process_that_ends_without_an_error_leaves_the_others(end: str, tmp_path: Path) -> None:
    result = on_two_ranks("tests.engine.ended_on_ranks", tmp_path / "end.pt", end)
    assert bool(result["is_initialized"]) == (end == "fails")
