"""Table of the methods that are close to the best on many tasks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parents[1] / "docs"


def result(higher_is_better: bool, **scores: float) -> dict[str, Any]:
    """Result of an exhaustive search with these test scores."""
    arms = {name: {"test": {"mean": score}} for name, score in scores.items()}
    return {"higher_is_better": higher_is_better, "arms": arms}


def test_methods_are_ordered_by_their_mean_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(DOCS))
    import ranking_table

    results = {
        "images": result(True, alone=0.6, kd=0.8, dist=0.7, recipe=0.75, rare=0.8),
        "language": result(False, alone=20.0, kd=18.0, dist=10.0, recipe=12.0),
    }
    for task, content in results.items():
        (tmp_path / f"{task}.json").write_text(json.dumps(content))
    monkeypatch.setattr(ranking_table, "FOLDER", tmp_path)
    text = ranking_table.insert_table(f"Before.\n\n{ranking_table.MARKER}\n")
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    # Half and all of the largest gain; all and a fifth of it. One task is too few for a row.
    assert rows == ["| `dist` | 75 | 50 | 50 | 100 |", "| `kd` | 60 | 20 | 100 | 20 |"]


def test_the_page_has_the_marker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS))
    import ranking_table

    assert ranking_table.MARKER in (DOCS / "choose.md").read_text(encoding="utf-8")
    assert "| `dist` |" in ranking_table.ranking()
