from __future__ import annotations

from instil.cli.result_lines import privacy_line, result_lines


def test_a_private_run_has_its_budget() -> None:
    cost = {"epsilon": 35.12, "delta": 1e-5, "questions": 300, "answered": 200}
    line = "Privacy: epsilon 35.1 at delta 1e-05, 200 answers."
    assert privacy_line({"privacy": cost}) == line
    assert privacy_line({}) == ""
    assert result_lines({"privacy": cost}) == [line]
    assert result_lines({}) == []
