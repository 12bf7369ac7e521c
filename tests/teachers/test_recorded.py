"""Recorded outputs as a teacher; the tests of the store cover reading and errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from instil.store.reader import row_checksums
from instil.teachers.recorded import Recorded
from instil.testing import check_teacher
from tests.store.test_store import batch_of, recorded


def test_contracts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))
    store = recorded(tmp_path / "store")
    check_teacher(
        lambda: Recorded(store, row_checksums), batch_of([8, 3], [2, 0]), differentiable=False
    )
