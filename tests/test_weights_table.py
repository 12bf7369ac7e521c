"""Table of published weights against weights that balance gradients."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"


def test_a_row_compares_the_best_methods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS))
    import weights_table

    rows = {
        "kd": {"kind": "logits", "weight": 0.1, "published": [0.5, 0.7], "balanced": [0.6, 0.6]},
        "dist": {"kind": "logits", "weight": 0.1, "published": [0.9, 0.7], "balanced": [0.5, 0.5]},
        "rkd": {
            "kind": "relations",
            "weight": 0.1,
            "published": [0.3, 0.3],
            "balanced": [0.5, 0.5],
        },
    }
    perplexities = {
        "kd": {"kind": "logits", "weight": 9.0, "published": [12.0], "balanced": [10.0]}
    }
    (tmp_path / "balanced.json").write_text(
        json.dumps({"images": rows, "language": perplexities}), encoding="utf-8"
    )
    (tmp_path / "exhaustive").mkdir()
    for task, metric, higher in (("images", "accuracy", True), ("language", "perplexity", False)):
        content = {"headline": metric, "higher_is_better": higher}
        (tmp_path / "exhaustive" / f"{task}.json").write_text(json.dumps(content))
    monkeypatch.setattr(weights_table, "FOLDER", tmp_path)
    text = weights_table.insert_table(weights_table.MARKER)
    assert "| `images` | logits | large | 2 | 1 | +15.0 | `dist` 80.0 | `kd` 60.0 |" in text
    assert (
        "| `images` | features, relations | large | 1 | 0 | -20.0 | `rkd` 30.0 | `rkd` 50.0 |"
        in text
    )
    assert "| `language` | logits | small | 1 | 0 | -2.0 | `kd` 12.0 | `kd` 10.0 |" in text


def test_the_page_has_the_marker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS))
    import weights_table

    page = (DOCS / "search.md").read_text(encoding="utf-8")
    assert weights_table.MARKER in page
    assert "| `graph` |" in weights_table.comparison()
