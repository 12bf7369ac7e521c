"""Search with equal budgets for one setting per modality in which the teacher sees more.

python benchmarks/modalities.py ROW... [--data FOLDER] [--jobs 1] [--work FOLDER]

Every file ``modalities/ROW.yaml`` describes a row, whose result is ``modalities/ROW.json``. Keys:

- ``title``: task, teacher and student in a few words.
- ``sees_more``: what the teacher sees that the student does not.
- ``recipe``: name of a shipped recipe, or a YAML file in ``modalities``.
- ``overrides``: ``key=value`` pairs. ``{data}`` is the folder of the data sets (``--data``).
- ``candidates``: methods besides the recipe's own and the reference arms.
- ``trials``: trials of every arm in each round, the student alone included.
- ``seeds``: new seeds of the finalists, 5 by default.

All choices use validation data. The test split is read once, by the finalists. A stopped row
continues with the same ``--work`` folder.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console

from instil import recipe as recipes
from instil.files.json_files import write_json
from instil.search import search as searches

ROWS = Path(__file__).parent / "modalities"
COPIED = (
    "headline",
    "higher_is_better",
    "teacher",
    "winner",
    "best",
    "finalists",
    "final_seeds",
    "schedule",
    "steps",
    "seconds",
    "notes",
    "refused",
    "signals",
)


def measure(row: dict[str, Any], data: str, folder: Path, num_jobs: int) -> dict[str, Any]:
    """Run or continue the search of a row and return what the documentation shows."""
    console = Console()
    if (folder / searches.STATE).exists():
        outcome = searches.resume(folder, console, num_jobs)
    else:
        name = row["recipe"]
        local = ROWS / name
        overrides = [text.replace("{data}", data) for text in row.get("overrides", ())]
        recipe = recipes.load(str(local) if local.exists() else name, overrides)
        settings = searches.Settings(
            over=("methods", "options"),
            candidates=tuple(row["candidates"]) or None,
            max_runs=row.get("runs"),
            num_trials=row.get("trials", 4),
            num_seeds=row.get("seeds", 5),
        )
        outcome = searches.start(recipe, settings, folder, console, num_jobs)
    arms = {arm["name"]: arm["step_seconds"] for arm in outcome["arms"]}
    return {
        **{key: outcome[key] for key in COPIED if key in outcome},
        "step_seconds": arms,
        "arm_signals": {arm["name"]: arm.get("signals") for arm in outcome["arms"]},
        "torch": torch.__version__,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
    }


def main() -> None:
    """Measure the rows of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="+", metavar="ROW", help="names of files in modalities/")
    parser.add_argument("--data", default=".", help="folder of the data sets")
    parser.add_argument("--jobs", type=int, default=1, help="processes that train students")
    parser.add_argument("--work", type=Path, help="folder of the searches, to continue them")
    options = parser.parse_args()
    work = options.work or Path(tempfile.mkdtemp())
    for name in options.rows:
        row = yaml.safe_load((ROWS / f"{name}.yaml").read_text(encoding="utf-8"))
        result = measure(row, options.data, work / name, options.jobs)
        write_json(ROWS / f"{name}.json", result)


if __name__ == "__main__":
    main()
