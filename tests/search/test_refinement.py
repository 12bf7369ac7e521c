"""Students between the sizes of the candidates of a search."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from instil.search.schedule import plan_random, plan_schedule
from instil.search.search import Settings, resume, start
from tests.search.recipes import recipe, silent

SETTINGS: dict[str, Any] = {"over": ("students",), "num_seeds": 1, "keep": 0.9}
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished search, in which pruned teachers are the smallest good students."""
    path = tmp_path_factory.mktemp("refinement") / "search"
    student = {"model": "networks:mlp", "options": {"width": 4, "depth": 1}}
    own = recipe(student=student, train={"steps": 60, "optimizer": {"type": "adamw", "lr": 1e-2}})
    start(own, Settings(**SETTINGS), path, silent())
    return path


def content(folder: Path) -> dict[str, Any]:
    text: dict[str, Any] = json.loads((folder / "search.json").read_text())
    return text


def scores(outcome: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """Mean scores of the finalists by name."""
    rows = outcome["finalists"]
    return {row["name"]: (row["validation"]["mean"], row["test"]["mean"]) for row in rows}


def left(arm: dict[str, Any]) -> float:
    """Share of a pruned teacher that is left; 0 for other students."""
    changes = arm["changes"].get("student", {}).get("changes", {})
    return 1 - changes["prune"]["share"] if "prune" in changes else 0.0


@pytest.mark.slow
def test_a_smaller_student_is_trained_next_to_the_smallest_that_keeps_the_share(
    folder: Path,
) -> None:
    outcome = content(folder)
    planned = json.loads((folder / "study.json").read_text())["arms"]
    arms = outcome["arms"]
    assert 1 <= len(arms) - len(planned) <= 3
    last = max(trial["round"] for trial in outcome["trials"])
    trained = {one["arm"]: one["score"] for one in outcome["trials"] if one["round"] == last}
    for index in range(len(planned), len(arms)):
        late = arms[index]
        pruned = [arm for arm in arms[:index] if left(arm) and arm["name"] in trained]
        good = [arm for arm in pruned if trained[arm["name"]] >= outcome["keep"]["target"]]
        upper = min(map(left, good))
        lower = max((share for share in map(left, pruned) if share < upper), default=upper / 4)
        assert left(late) == pytest.approx((upper * lower) ** 0.5, abs=0.01)
        assert late["costs"]["bytes"] < min(arm["costs"]["bytes"] for arm in good)
        finals = [one for one in outcome["trials"] if one["arm"] == late["name"]]
        assert [one["round"] for one in finals] == [last, -1]
    names = ", ".join(arm["name"] for arm in arms[len(planned) :])
    assert f"Trained between the sizes of other students: {names}" in outcome["notes"]


@pytest.mark.slow
def test_a_search_continues_with_the_same_students(folder: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    shutil.copytree(folder, again)
    for path in ("refinements", "search.json"):
        part = again / path
        shutil.rmtree(part) if part.is_dir() else part.unlink()
    outcome = resume(again, silent())
    assert scores(outcome) == scores(content(folder))
    (again / "search.json").unlink()
    # A process that joins reads the measured costs of the others.
    repeated = json.loads(json.dumps(resume(again, silent())))
    costs = {arm["name"]: arm["costs"] for arm in outcome["arms"]}
    assert {arm["name"]: arm["costs"] for arm in repeated["arms"]} == costs


def test_further_students_are_part_of_the_budget() -> None:
    usual = plan_schedule(12, 0, 90, None, num_finalists=6)
    refined = plan_schedule(12, 0, 90, None, num_finalists=6, num_refinements=3)
    assert refined.total_steps == usual.total_steps + 3 * 90 + 3 * 3 * 90
    assert plan_random(refined).num_refinements == 0
    enough = refined.total_steps
    within = plan_schedule(12, 0, 90, enough, num_finalists=6, num_refinements=3)
    assert within.num_refinements == 3
    assert within.rungs[-1].num_steps == 90
    small = plan_schedule(12, 0, 90, enough - 1, num_finalists=6, num_refinements=3)
    assert small.num_refinements == 0
    assert small == plan_schedule(12, 0, 90, enough - 1, num_finalists=6)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"over": ("students",)}, True),
        ({"over": ("students", "options"), "students": ("teacher",)}, True),
        ({"over": ("students", "methods")}, False),
        ({"over": ("students",), "students": ("timm:resnet18",)}, False),
        ({"over": ("students",), "strategy": "random"}, False),
        ({"over": ("methods",)}, False),
    ],
)
def test_searches_for_sizes_have_further_students(settings: dict[str, Any], expected: bool) -> None:
    assert Settings(**settings).has_refinements == expected
