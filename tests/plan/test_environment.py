"""Environment of a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from instil.plan.environment import collect_environment


def test_outside_of_a_repository_there_is_no_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    environment = collect_environment([4])
    assert environment["git"] is None
    assert environment["seeds"] == [4]
    assert environment["hardware"]["cores"] >= 1
    json.dumps(environment)
