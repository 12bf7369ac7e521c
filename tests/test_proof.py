"""Regret of searches against an exhaustive search (``benchmarks/proof.py``)."""

from __future__ import annotations

import json
import random
import re
import runpy
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

PROOF = Path(__file__).parents[1] / "benchmarks" / "proof.py"


@pytest.fixture(scope="module")
def proof() -> dict[str, Any]:
    """Functions of the benchmark."""
    return runpy.run_path(str(PROOF))


def everything(higher_is_better: bool = True) -> dict[str, Any]:
    """Result of an exhaustive search over three methods with three seeds."""
    scores = {"kd": [0.80, 0.82, 0.81], "dkd": [0.79, 0.83, 0.80], "alone": [0.60, 0.61, 0.62]}
    arms = {}
    for name, values in scores.items():
        split = {"values": values, "mean": sum(values) / 3, "std": 0.01}
        kind = "baseline" if name == "alone" else "objective"
        arms[name] = {"kind": kind, "test": split, "validation": split}
    return {
        "headline": "accuracy",
        "higher_is_better": higher_is_better,
        "steps": 1000,
        "arms": arms,
        "step_seconds": dict.fromkeys(arms, 0.01),
    }


def many(num_methods: int) -> dict[str, Any]:
    """Result of an exhaustive search over methods of known quality, almost without noise."""
    result = everything()
    for index in range(num_methods):
        mean, noise = 0.5 + index / 1000, index * 1e-6
        split = {"values": [mean - noise, mean, mean + noise], "mean": mean, "std": noise}
        result["arms"][f"m{index}"] = {"kind": "objective", "test": split, "validation": split}
    for name in ("kd", "dkd", "alone"):
        split = {"values": [0.4] * 3, "mean": 0.4, "std": 0.0}
        result["arms"][name] |= {"test": split, "validation": split}
    result["step_seconds"] = dict.fromkeys(result["arms"], 0.01)
    result["steps"] = 3 * 100 * len(result["arms"])
    return result


def trial(
    arm: str, index: int, score: float | None, steps: int = 50, **more: Any
) -> dict[str, Any]:
    return {
        "arm": arm,
        "round": index,
        "score": score,
        "num_steps": steps,
        "status": "complete" if score is not None else "failed",
        **more,
    }


def test_the_regret_is_the_distance_from_the_best_method(proof: dict[str, Any]) -> None:
    result = proof["regret"](everything(), "alone")
    assert result["best"] == "kd"
    assert result["regret"] == pytest.approx(0.20)
    assert not result["within_noise"]
    close = proof["regret"](everything(), "dkd")
    assert close["regret"] == pytest.approx(0.01 / 3)
    assert close["within_noise"]
    assert proof["regret"](everything(), "kd")["regret"] == 0


def test_the_direction_of_the_metric_decides(proof: dict[str, Any]) -> None:
    result = proof["regret"](everything(higher_is_better=False), "kd")
    assert result["best"] == "alone"
    assert result["regret"] == pytest.approx(0.20)


def curve_of(proof: dict[str, Any], trials: list[dict[str, Any]]) -> dict[float, float | None]:
    result = everything()
    return dict(proof["regret_curve"](result, trials, proof["all_regrets"](result)))


def test_the_curve_follows_the_best_method_of_the_latest_round(proof: dict[str, Any]) -> None:
    trials = [
        trial("alone", 0, 0.7),
        trial("dkd", 0, 0.9),
        trial("alone", 1, 0.95),
        trial("kd", -1, 0.1),
    ]
    curve = curve_of(proof, trials)
    assert list(curve) == list(proof["CHECKPOINTS"])
    assert curve[0.04] is None
    expected = {0.06: 0.20, 0.1: 0.01 / 3, 0.16: 0.20, 0.2: 0.0}
    assert {share: curve[share] for share in expected} == pytest.approx(expected)


def test_trainings_of_the_same_length_count_together(proof: dict[str, Any]) -> None:
    trials = [
        trial("dkd", 0, 0.8),
        trial("kd", 0, 0.7),
        trial("dkd", -1, 0.7),
        trial("kd", -1, 0.75),
    ]
    curve = curve_of(proof, trials)
    # dkd has the better mean, kd the better last training.
    assert curve[0.2] == curve_of(proof, trials[:1])[0.2]


def test_a_failed_trial_costs_but_does_not_lead(proof: dict[str, Any]) -> None:
    stopped = trial("dkd", 1, 0.99, status="stopped", curve=[[25, 0.99]])
    curve = curve_of(proof, [trial("kd", 0, None), trial("alone", 0, 0.5), stopped])
    assert curve[0.08] is None
    assert curve[0.1] == curve[0.2] == pytest.approx(0.20)


def test_a_random_search_has_the_cost_of_a_search(proof: dict[str, Any]) -> None:
    result = many(97)
    schedule = proof["random_schedule"](result)
    trials = proof["random_trials"](result, schedule, random.Random(0))
    assert sum(one["num_steps"] for one in trials) == schedule.total_steps
    share = schedule.total_steps / result["steps"]
    assert 0.18 < share <= 0.2
    first = [one["arm"] for one in trials if one["round"] == 0]
    # Without repetition, and with all reference arms.
    assert len(set(first)) == len(first) == schedule.rungs[0].num_candidates + 2
    assert {"kd", "alone"} <= set(first)
    finals = [one for one in trials if one["round"] < 0]
    ranked = sorted(first, key=lambda arm: -result["arms"][arm]["validation"]["mean"])
    best = ranked[: schedule.num_finalists]
    assert [one["arm"] for one in finals][: len(best)] == best
    assert proof["winner_of"](result, trials) == best[0]


def test_the_simulated_regret_is_that_of_a_random_subset(proof: dict[str, Any]) -> None:
    result = many(97)
    schedule = proof["random_schedule"](result)
    simulated = proof["random_searches"](result, num_draws=300)
    # Without noise the best of k of n methods wins; its expected rank from the top is (n + 1) /
    # (k + 1), and a rank costs 0.001. The method dkd is worse than all of them.
    num_drawn = schedule.rungs[0].num_candidates
    expected = (99 / (num_drawn + 1) - 1) / 1000
    assert simulated["regret"]["mean"] == pytest.approx(expected, rel=0.2)
    assert simulated["regret"]["low"] == 0
    shares, means, lows, highs = zip(*simulated["curve"], strict=True)
    assert shares[-1] == 0.2
    assert means[-1] == pytest.approx(simulated["regret"]["mean"])
    assert all(low <= mean <= high for low, mean, high in zip(lows, means, highs, strict=True))
    assert means[0] > means[-1]


def test_a_trial_uses_one_seed_and_the_final_another(proof: dict[str, Any]) -> None:
    result = everything()
    result["step_seconds"]["broken"] = 0.01
    schedule = proof["plan_random"](proof["plan_schedule"](2, 2, 100, None, num_seeds=1))
    for draw in range(5):
        trials = proof["random_trials"](result, schedule, random.Random(draw))
        seeds = {}
        for one in trials:
            if one["arm"] == "broken":
                assert one["status"] == "failed"
                assert one["round"] == 0
                continue
            values = result["arms"][one["arm"]]["validation"]["values"]
            seeds.setdefault(one["round"], set()).add(values.index(one["score"]))
        assert len(seeds[0]) == len(seeds[-1]) == 1
        assert seeds[0] != seeds[-1]


def students(winner: str, seconds: float = 1.0, is_met: bool = True) -> dict[str, Any]:
    """Result of a search over three students."""
    sizes = {"small": 1000, "middle": 2000, "large": 4000}
    scores = {"small": 0.7, "middle": 0.8, "large": 0.9}
    rows = [
        {
            "name": name,
            "bytes": size,
            "latency_ms": 1.0,
            "validation": {"mean": scores[name]},
            "test": {"mean": scores[name]},
        }
        for name, size in sizes.items()
    ]
    return {
        "headline": "accuracy",
        "higher_is_better": True,
        "steps": 1000,
        "seconds": seconds,
        "keep": {"share": 0.9, "target": 0.72, "is_met": is_met},
        "winner": winner,
        "teacher": {"score": 0.8},
        "refused": {},
        "finalists": rows,
    }


def test_chosen_students_are_compared_by_size(proof: dict[str, Any]) -> None:
    result = proof["compare_students"](students("middle"), [students("middle"), students("large")])
    assert [search["size"] for search in result["searches"]] == [1.0, 2.0]
    assert [search["share"] for search in result["searches"]] == pytest.approx([1.0, 1.125])
    assert set(result["students"]) == {"small", "middle", "large"}


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proof: dict[str, Any]) -> ModuleType:
    """The module ``docs/proof_tables.py`` with a measured task and one without results."""
    monkeypatch.syspath_prepend(str(PROOF.parents[1] / "docs"))
    import proof_tables

    monkeypatch.setattr(proof_tables, "FOLDER", tmp_path)
    for task in ("emoji", "images"):
        (tmp_path / f"{task}.yaml").write_text("")
    result = many(97)
    _write(tmp_path, "exhaustive", "images", result)
    _write(tmp_path, "random", "images", proof["random_searches"](result, num_draws=20))
    return proof_tables


def _write(folder: Path, part: str, task: str, content: Any) -> None:
    (folder / part).mkdir(exist_ok=True)
    (folder / part / f"{task}.json").write_text(json.dumps(content))


def test_an_exhaustive_search_without_searches_has_its_own_table(tables: ModuleType) -> None:
    text = tables.insert_table(f"Before.\n\n{tables.MARKER}\n\nAfter.\n")
    assert "Exhaustive search: `images`. Searches: none." in text
    assert "Not measured yet: searches on `emoji`, `images`." in text
    row = r"\| `images` \| 100 \| accuracy \(%\) \| `m96` \| 59\.6 ± 0\.0 \| 0\.00 \| 0\.\d\d "
    assert re.search(row + r"\(0\.00 to \d\.\d\d\) \|\n", text)
    assert "mean regret" not in text
    assert "random search, mean" in text
    assert "halving over steps: worst study" not in text
    assert text.endswith("After.\n")


def test_the_table_counts_choices_and_regrets(
    tables: ModuleType, tmp_path: Path, proof: dict[str, Any]
) -> None:
    result = many(97)
    regrets = proof["all_regrets"](result)
    trials = [trial("m96", 0, 0.9, steps=300), trial("m96", -1, 0.9, steps=300)]
    studies = []
    for winner in ("m96", "m96", "m94", "m92", "m96"):
        curve = proof["regret_curve"](result, trials, regrets)
        studies.append({"winner": winner, "steps": 6000, **regrets[winner], "curve": curve})
    _write(tmp_path, "searches", "images", studies)
    text = tables.evidence()
    assert "Searches: `images`. Not measured yet: searches on `emoji`." in text
    # Regrets 0, 0, 0.2, 0.4, 0 points, and without noise two of them are significant.
    expected = "| `m96` (3), `m94`, `m92` | 0.12 | 0.40 | 3 of 5 | 4 of 5 | 20.0 % |"
    assert expected in text
    figure = text[text.index("<figure") :]
    assert "halving over steps: worst study" in figure
    assert "\n\n" not in figure.strip()
    assert figure.count("<polyline") == 4


def test_the_table_has_the_regret_with_new_seeds(
    tables: ModuleType, tmp_path: Path, proof: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    searched = [
        {"winner": name, "steps": 6, "regret": 0.1, "within_noise": False, "curve": []}
        for name in ("m96", "m95", "m94")
    ]
    _write(tmp_path, "searches", "images", searched)
    # The best of the exhaustive search was lucky: m95 is better with new seeds.
    scores = {"m96": [0.5, 0.52], "m95": [0.529, 0.551], "m94": [0.399, 0.421]}
    settings = []

    def run(task: str, data: Path, folder: Path, num_jobs: int, own: Any) -> dict[str, Any]:
        settings.append(own)
        rows = [{"name": name, "test": {"values": row}} for name, row in scores.items()]
        return {"finalists": rows, "steps": 12}

    confirm = proof["confirm"]
    monkeypatch.setitem(confirm.__globals__, "HERE", tmp_path)
    monkeypatch.setitem(confirm.__globals__, "run", run)
    result = confirm("images", tmp_path, tmp_path, 1)
    assert sorted(settings[0].candidates) == ["m94", "m95", "m96"]
    assert result["gains"]["m95"]["mean"] == pytest.approx(0.03)
    _write(tmp_path, "confirmed", "images", result)
    # Regrets 0, -3 and 10 points.
    assert "| 2.33; `m94` worse |\n" in tables.evidence()
    # A method of another search has no scores yet: it alone is trained, with the references.
    _write(tmp_path, "seeds", "images", [searched[1], searched[0] | {"winner": "m90"}])
    scores = {"m90": [0.5, 0.54]}
    assert "| `m95`, `m90` | 10.00 |" in tables.evidence()
    result = confirm("images", tmp_path, tmp_path, 1)
    assert settings[1].candidates == ("m90",)
    _write(tmp_path, "confirmed", "images", result)
    assert "| -2.00 |\n" in tables.evidence()
    confirm("images", tmp_path, tmp_path, 1)
    assert len(settings) == 2


def test_the_site_shows_every_measured_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PROOF.parents[1] / "docs"))
    import proof_tables

    page = (PROOF.parents[1] / "docs" / "search.md").read_text(encoding="utf-8")
    assert proof_tables.MARKER in page
    text = proof_tables.evidence()
    measured = sorted((PROOF.parent / "proof" / "exhaustive").glob("*.json"))
    assert measured
    for path in measured:
        assert f"| `{path.stem}` | " in text


def test_the_table_of_students_has_a_row_for_each_task(
    tables: ModuleType, tmp_path: Path, proof: dict[str, Any]
) -> None:
    assert tables.insert_table(tables.STUDENTS_MARKER) == "Not measured yet."
    result = proof["compare_students"](students("middle"), [students("middle"), students("large")])
    _write(tmp_path, "students", "images", result)
    text = tables.insert_table(tables.STUDENTS_MARKER)
    cells = ("`images`", "3", "90 %", "`middle`", "2.0", "`middle`, `large`", "1.00 to 2.00")
    assert f"| {' | '.join(cells)} | 100.0 to 112.5 % |" in text
