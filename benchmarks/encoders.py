"""Foundation encoders: one student from one teacher, or from several.

python benchmarks/encoders.py NAME [--data FOLDER] [--work FOLDER]

``encoders/NAME.yaml`` is a recipe and ``encoders/NAME.arms.yaml`` its arms. All arms have the same
student, batches, steps, learning rate and seeds; nothing is tuned. Keys of the latter:

- ``common``: changes of the recipe in all arms. ``{data}`` is the folder of the data sets.
- ``arms``: name of an arm -> further changes.
- ``compared``: arm whose gain over every other arm is computed.

The result is ``encoders/NAME.json``: the test metrics of each arm and seed, with those of the
recipe's own reference arms, and the paired gains with their 95 % intervals.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console

from instil import recipe as recipes
from instil.files.json_files import write_json
from instil.plan.run import run
from instil.plan.statistics import paired_gain

FOLDER = Path(__file__).parent / "encoders"
QUIET = {"export": False, "train.evaluate_every": 1000}
Scores = dict[str, dict[str, Any]]
"""For each metric: ``mean``, ``std`` and ``values`` over the seeds."""


def measure(name: str, changes: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Run a recipe with changes, unless the folder has its result."""
    path = folder / "result.json"
    if not path.exists():
        overrides = [f"{key}={json.dumps(value)}" for key, value in changes.items()]
        recipe = recipes.load(FOLDER / f"{name}.yaml", overrides)
        run(recipe, folder, None, Console(quiet=True))
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return result


def measure_arms(name: str, data: str, work: Path) -> dict[str, Any]:
    """Run all arms of a recipe and compute the gains of the compared arm."""
    text = (FOLDER / f"{name}.arms.yaml").read_text(encoding="utf-8")
    described = yaml.safe_load(text.replace("{data}", data))
    scores: dict[str, Scores] = {}
    for arm, changes in described["arms"].items():
        result = measure(name, described["common"] | changes | QUIET, work / arm)
        # Reference arms do not depend on the teachers.
        scores = {reference: result[reference] for reference in result["arms"]} | scores
        scores[arm] = result["distilled"]
        print(arm, {metric: round(value["mean"], 4) for metric, value in scores[arm].items()})
    best = scores[described["compared"]]
    gains = {
        arm: {
            metric: paired_gain(best[metric]["values"], other[metric]["values"])
            for metric in other
            if metric in best
        }
        for arm, other in scores.items()
        if arm != described["compared"]
    }
    return {
        "compared": described["compared"],
        "seeds": result["seeds"],
        "headline": result["headline"],
        "arms": scores,
        "gains": gains,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def main() -> None:
    """Measure the arms of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", help="name of a recipe in encoders/")
    parser.add_argument("--data", default=".", help="folder of the data sets")
    parser.add_argument("--work", type=Path, help="folder of the runs, to continue them")
    options = parser.parse_args()
    torch.set_num_threads(1)
    work = (options.work or Path(tempfile.mkdtemp())) / options.name
    result = measure_arms(options.name, options.data, work)
    write_json(FOLDER / f"{options.name}.json", result)


if __name__ == "__main__":
    main()
