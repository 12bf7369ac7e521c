"""Environment of a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from instil.plan.environment import collect_environment
from instil.plan.execution_facts import _plugin_digest


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


def test_packages_with_methods_have_their_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = tmp_path / "seaside-0.4.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: seaside\nVersion: 0.4\n")
    # The metric of a package may decide which weights are kept.
    (metadata / "entry_points.txt").write_text("[instil.metrics]\nmargin = seaside.margin\n")
    (tmp_path / "seaside").mkdir()
    code = tmp_path / "seaside" / "__init__.py"
    code.write_text("MARGIN = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert collect_environment([0])["versions"]["seaside"] == "0.4"
    before = _plugin_digest.__wrapped__()
    code.write_text("MARGIN = 2\n")
    assert _plugin_digest.__wrapped__() != before
