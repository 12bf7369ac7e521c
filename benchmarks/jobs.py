"""Time of a run with two worker processes relative to one process.

python benchmarks/jobs.py [RECIPE] [KEY=VALUE ...] [--jobs 2] [--repeats 1] [--json]

Both runs execute the same plan with a cached teacher, so that the students are what differs. They
take turns, and the ratio is the median over the turns. Students are not shared between the runs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from instil import recipe as recipes
from instil.plan.executors.selection import select_executor
from instil.plan.run import run
from instil.recipe.sections import Recipe


def seconds_of_run(recipe: Recipe, folder: Path, num_workers: int) -> float:
    """Run a recipe in a new folder and return the seconds."""
    start = time.perf_counter()
    run(recipe, folder, None, Console(quiet=True), select_executor(num_workers))
    return time.perf_counter() - start


def measure(recipe: Recipe, num_workers: int, num_repeats: int) -> dict[str, Any]:
    """Time both executors in turns, after a run that trains the teacher."""
    load = os.getloadavg()[0]
    ratios: list[float] = []
    durations: dict[int, list[float]] = {1: [], num_workers: []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ |= {"INSTIL_CACHE": str(folder / "cache"), "INSTIL_CACHE_GB": "0"}
        teacher_only = recipe.model_copy(update={"seeds": recipe.seeds[:1], "baselines": []})
        run(teacher_only, folder / "teacher", None, Console(quiet=True))
        for turn in range(num_repeats):
            for count, values in durations.items():
                values.append(seconds_of_run(recipe, folder / f"{turn}-{count}", count))
            ratios.append(durations[num_workers][-1] / durations[1][-1])
    return {
        "recipe": recipe.name,
        "trainings": len(recipe.seeds) * (len(recipe.baselines) + 1),
        "jobs": num_workers,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_before": load,
        "seconds_one_process": statistics.median(durations[1]),
        "seconds_jobs": statistics.median(durations[num_workers]),
        "ratio": statistics.median(ratios),
    }


def main() -> None:
    """Print the times and their ratio."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("recipe", nargs="?", default="digits")
    parser.add_argument("changes", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--jobs", type=int, default=2, help="number of worker processes")
    parser.add_argument("--repeats", type=int, default=1, help="turns of both runs")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    recipe = recipes.load(arguments.recipe, arguments.changes)
    result = measure(recipe, arguments.jobs, arguments.repeats)
    if arguments.json:
        print(json.dumps(result))
        return
    for key, value in result.items():
        print(f"{key:22} {value:.3g}" if isinstance(value, float) else f"{key:22} {value}")


if __name__ == "__main__":
    main()
