"""Gain of every shipped recipe over the same student alone, with the same budget.

python benchmarks/gains.py [RECIPE ...] [--seeds 5] [--processes 2] [--json benchmarks/gains.json]

``gains.yaml`` contains the rows: a question, and the recipes with overrides that answer it. Each
recipe runs completely over its seeds, as with ``instil run``; a recipe with a store is recorded
first. The numbers are those of ``result.json``: the last epoch on the test split.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console

from instil import recipe
from instil.experiment.recipe_metrics import perturbations
from instil.files.atomic import atomic
from instil.plan.recording import record_outputs
from instil.plan.run import run

HERE = Path(__file__).parent
QUIET = ["export=false", "train.evaluate_every=1000"]
ARMS = (
    "teacher",
    "alone",
    "label_smoothing",
    "pseudo_labels",
    "noise",
    "blobs",
    "random_init",
    "distilled",
)
WRITING = ("written_per_second", "writing_bytes")


def rows() -> list[tuple[str, str]]:
    """Return pairs of question and command, in the order of the page."""
    commands_of: dict[str, list[str]] = yaml.safe_load(
        (HERE / "gains.yaml").read_text(encoding="utf-8")
    )
    return [
        (question, command) for question, commands in commands_of.items() for command in commands
    ]


def measured(command: str, seeds: int | None = None) -> dict[str, Any]:
    """Run a recipe with overrides and return its row, with ``error`` if it fails.

    ``seeds`` is a number of seeds instead of those of the recipe.
    """
    torch.set_num_threads(1)
    name, *options = command.split()
    if seeds is not None:
        options.append(f"seeds={list(range(seeds))}")
    start = time.perf_counter()
    try:
        with tempfile.TemporaryDirectory() as folder:
            config = recipe.load(
                str(HERE.parent / "src/instil/recipes" / f"{name}.yaml"), [*options, *QUIET]
            )
            if config.store is not None:
                config = config.model_copy(
                    update={
                        "store": config.store.model_copy(
                            update={"path": str(Path(folder) / config.store.path)}
                        )
                    }
                )
                record_outputs(config, Console(quiet=True))
            result = json.loads(
                (
                    run(config, Path(folder) / "run", None, Console(quiet=True)) / "result.json"
                ).read_text(encoding="utf-8")
            )
    except Exception as error:  # one failing recipe must not stop the table
        return {"command": command, "error": f"{type(error).__name__}: {error}"}
    trials = perturbations(config)
    # With a robust student, its accuracy on clean images too.
    shown = [result["headline"], *(["accuracy", *trials] if trials else [])]
    metrics = [metric for metric in dict.fromkeys(shown) if metric in result["distilled"]]
    summary = {
        key: result[key]
        for key in ("headline", "scheme", "seeds", "gain", "gains", *ARMS)
        if key in result
    }
    return {
        "command": command,
        "metrics": metrics,
        **summary,
        "writing": {
            arm: {key: one[key] for key in WRITING}
            for arm, one in result["details"].items()
            if set(WRITING) <= one.keys()
        },
        "parameters": result["cost"]["student"]["parameters"],
        "seconds": round(time.perf_counter() - start),
    }


def line(row: dict[str, Any]) -> str:
    """Format a row as text."""
    if "error" in row:
        return f"{row['command']:60} {row['error']}"
    headline = row["headline"]
    scale = 1 if headline in ("perplexity", "frechet_distance") else 100
    arms = "  ".join(
        f"{name} {scale * row[name][headline]['mean']:.1f}" for name in ARMS if name in row
    )
    return f"{row['command']:60} {arms}  ({row['seconds']} s)"


def write(path: Path | None, results: dict[str, dict[str, Any]]) -> None:
    """Write the table without rows that ``gains.yaml`` no longer contains."""
    if path:
        done = [
            results[command] | {"question": question}
            for question, command in rows()
            if "error" not in results.get(command, {"error"})
        ]
        with atomic(path) as temporary:
            table = {"torch": torch.__version__, "rows": done}
            temporary.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "recipes",
        nargs="*",
        help=(
            "only the rows of these recipes, such as classification/kd; 'missing': those without "
            "numbers"
        ),
    )
    parser.add_argument(
        "--json",
        type=Path,
        help="also write the table to this file; its other rows are kept",
    )
    parser.add_argument("--seeds", type=int, help="number of seeds instead of those of the recipe")
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    results: dict[str, dict[str, Any]] = {}
    if options.json and options.json.exists():
        results = {
            row["command"]: row
            for row in json.loads(options.json.read_text(encoding="utf-8"))["rows"]
        }
    commands = dict.fromkeys(command for _, command in rows())
    if options.recipes:
        finished = set(results) if "missing" in options.recipes else set(commands)
        commands = {
            command: None
            for command in commands
            if command not in finished or command.split()[0] in options.recipes
        }
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        tasks = [pool.submit(measured, command, options.seeds) for command in commands]
        for done in as_completed(tasks):
            row = done.result()
            results[row["command"]] = row
            print(line(row), flush=True)
            write(options.json, results)
    return 1 if any("error" in row for row in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
