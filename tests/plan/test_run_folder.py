"""Files of a run folder: always complete, and records that are removed again."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from instil.plan.run_folder import RunFolder


def record(arm: str, seed: int | None, step: int) -> dict[str, object]:
    return {"seed": seed, "arm": arm, "step": step, "losses": {"a": 1.0}}


def steps(folder: RunFolder) -> list[tuple[str, int | None, int]]:
    text = (folder.path / "metrics.jsonl").read_text()
    return [
        (line["arm"], line["seed"], line["step"]) for line in map(json.loads, text.splitlines())
    ]


def test_the_records_of_one_arm_and_seed_are_removed(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.remove_records("alone", 0)
    assert list(tmp_path.iterdir()) == []
    for arm, seed in (("teacher", None), ("alone", 0), ("alone", 1), ("distilled", 0)):
        folder.log(record(arm, seed, 1))
    folder.remove_records("alone", 0)
    folder.remove_records("teacher", None)
    assert steps(folder) == [("alone", 1, 1), ("distilled", 0, 1)]


@pytest.mark.parametrize(
    "half",
    [
        '{"seed": 0, "arm": "al',
        '{"seed": 0, "arm": "alone", "losses": {"a": 1.0}',
        "\x00\x00}",
        "17}",
    ],
)
def test_an_incomplete_line_of_a_killed_run_is_removed(half: str, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.log(record("distilled", 0, 1))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(half)
    folder.remove_records("alone", 0)
    folder.log(record("alone", 0, 2))
    assert steps(folder) == [("distilled", 0, 1), ("alone", 0, 2)]


def test_json_is_strict_and_complete(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.read_json("result.json") is None
    folder.write_json("result.json", {"name": "Zürich"})
    with pytest.raises(ValueError, match="not JSON compliant"):
        folder.write_json("result.json", {"loss": math.nan})
    assert folder.read_json("result.json") == {"name": "Zürich"}
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]
