"""Short waits for all tests of remote teachers."""

from __future__ import annotations

import pytest

from instil.remote import connection


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MAX_WAIT", 0.01)
