"""Comparison with TRL: what runs without it, and the tables of the measured numbers."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def benchmark() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "benchmarks" / "trl.py"))


@pytest.fixture
def size(benchmark: dict[str, Any]) -> Any:
    return benchmark["Size"]((32, 1), (32, 2), 64, rows=3, prompt=4, answer=6)


@pytest.mark.parametrize("kind", ["offline", "recorded", "on_policy"])
def test_losses_equal_those_of_the_plain_loop(
    benchmark: dict[str, Any], size: Any, kind: str
) -> None:
    sides = {name: side for name, side in benchmark["KINDS"][kind].items() if name != "TRL"}
    losses = benchmark["check_losses"](sides, size)
    assert len(losses["instil"]) == 4
    assert losses["instil"][-1] != losses["instil"][0]
    broken = sides | {"loop": lambda job: [value + 0.01 for value in sides["loop"](job)]}
    with pytest.raises(AssertionError, match="loop"):
        benchmark["check_losses"](broken, size)


def test_ratios_of_time_and_memory(benchmark: dict[str, Any], size: Any) -> None:
    sides = benchmark["KINDS"]["offline"]
    pair = {name: sides[name] for name in ("instil", "loop")}
    assert benchmark["memory_ratios"](pair | {"loop": pair["instil"]}, size) == {"memory_loop": 1}
    assert benchmark["step_seconds"](pair["instil"], size, 2) > 0
    assert benchmark["ratios"]([2.0, 3.0, 8.0], [1.0, 2.0, 2.0]) == [2.0, 1.5, 4.0]


def test_texts_equal_those_of_generate(benchmark: dict[str, Any], size: Any) -> None:
    state = torch.random.get_rng_state()
    result = benchmark["compare_rollouts"](size, 1)
    torch.random.set_rng_state(state)
    assert set(result) == {"time_generate", "time_static"}


def test_the_tables_are_inserted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import trl_table

    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert page.count(trl_table.MARKER) == 1
    text = trl_table.insert_table(page)
    assert trl_table.MARKER not in text
    measured = json.loads(trl_table.RESULT.read_text(encoding="utf-8"))
    for row in measured["rows"]:
        assert f"| {row['size']} |" in text
        for key, value in row.items():
            if key.startswith("time_"):
                assert f"{value[0]:.2f} ({value[1]:.2f} to {value[2]:.2f})" in text
            elif key.startswith("memory_"):
                assert f" {value:.2f} |" in text
