"""Every example runs without warnings and shows an effect."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
import torch

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))
pytestmark = pytest.mark.slow


def printed(text: str) -> dict[str, float]:
    """Return the printed percentages of an example by their labels."""
    return {
        name.strip(): float(value)
        for name, value in re.findall(r"^(.+?)\s+([\d.]+) %$", text, re.MULTILINE)
    }


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 5


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", [str(path)])
    torch.manual_seed(0)
    try:
        runpy.run_path(str(path), run_name="__main__")
    except SystemExit as end:
        if str(end).startswith("Skipped"):
            pytest.skip(str(end))
        raise
    shown = printed(capsys.readouterr().out)
    distilled = [value for name, value in shown.items() if name.startswith("distilled")]
    assert distilled, shown
    assert all(value > shown["student alone"] + 2 for value in distilled), shown


def test_a_resumed_run_is_the_run_in_one_piece(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = next(path for path in EXAMPLES if path.stem == "fit_with_own_loader")
    variables = runpy.run_path(str(path))
    for one, other in zip(
        variables["resumed"].net.parameters(), variables["whole"].net.parameters(), strict=True
    ):
        assert torch.equal(one, other)
