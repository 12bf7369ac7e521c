"""Lines below the table of a run: scores of all stages, privacy budget and exported arm."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from instil.cli.stages_line import stages_line
from instil.report.convergence import convergence_sentence
from instil.report.headline import exported_sentence
from instil.report.record import Record
from instil.report.run_files import read_run


def result_lines(result: Mapping[str, Any]) -> list[str]:
    """Return the lines that a run has; empty for one stage without a private teacher."""
    exported = exported_sentence(Record.of_result(result))
    return [line for line in (stages_line(result), privacy_line(result), exported) if line]


def privacy_line(result: Mapping[str, Any]) -> str:
    """Return the budget that the answers of a private teacher cost.

    Returns:
        Such as ``Privacy: epsilon 35 at delta 1e-05, 200 answers.``; empty without such a teacher.
    """
    cost = result.get("privacy")
    if not cost:
        return ""
    budget = f"epsilon {cost['epsilon']:.3g} at delta {cost['delta']:.3g}"
    return f"Privacy: {budget}, {cost['answered']} answers."


def convergence_line(folder: Path) -> str:
    """Return a sentence on trainings that were too short; empty if all had converged.

    Args:
        folder: run folder with its result.
    """
    sentence = convergence_sentence(read_run(folder))
    return f"{sentence}." if sentence else ""
