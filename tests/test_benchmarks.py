"""The benchmarks run and print what readers of their JSON expect; what they measure is not judged here."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

STEP = Path(__file__).parents[1] / "benchmarks" / "step.py"


@pytest.mark.slow
def test_step(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    module = runpy.run_path(str(STEP))
    monkeypatch.setattr("sys.argv", ["step.py", "--json", "--blocks", "2"])
    monkeypatch.setitem(module["main"].__globals__, "SIZES", {"ratio": module["SIZES"]["tiny"]})
    module["main"]()
    found = json.loads(capsys.readouterr().out)
    ratios = {name: value for name, value in found.items() if name.startswith("ratio_")}
    assert {"ratio_kd_to_plain", "ratio_kd_fitnet_to_plain", "ratio_taps"} <= set(ratios)
    assert all(0.1 < value < 10 for value in ratios.values())
    assert all(not isinstance(value, (dict, list)) for value in found.values())


def test_both_sides_of_the_step_learn_the_same() -> None:
    """The hand-written step and ours end with the same weights: what is compared is the same work."""
    torch = pytest.importorskip("torch")
    module = runpy.run_path(str(STEP))
    size, made = module["SIZES"]["tiny"], []
    for plain in (module["plain_kd"], module["plain_kd_fitnet"]):
        nets = module["nets"]
        students = []

        def keep(size: dict[str, int], nets=nets, students=students):  # type: ignore[no-untyped-def]
            students.append(nets(size))
            return students[-1]

        plain.__globals__["nets"] = keep
        step = plain(size)
        goals = {"cross_entropy": module["CrossEntropy"](), "kd": module["KD"](module["TEMPERATURE"])}
        if plain is module["plain_kd_fitnet"]:
            goals["fitnet"] = module["FitNet"]()
        module["ours"](size, goals, step, 2, 3)
        plain.__globals__["nets"] = nets
        (theirs, _), (mine, _) = students
        for one, other in zip(mine.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
        made.append(mine)
    assert len(made) == 2
