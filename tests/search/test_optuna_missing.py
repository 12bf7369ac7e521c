"""A search without Optuna."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.search.recipes import continue_search, search


def test_a_search_without_optuna_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    folder = tmp_path / "search"
    with pytest.raises(ImportError, match=r"optuna is missing.*pip install 'instil\[search\]'"):
        search(folder)
    assert not folder.exists()
    with pytest.raises(FileNotFoundError, match="not the folder of a search"):
        continue_search(folder)
