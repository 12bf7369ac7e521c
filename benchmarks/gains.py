"""Every shipped recipe against the same student alone, with the same budget: what did the method
gain?

python benchmarks/gains.py [RECIPE ...] [--processes 2] [--json benchmarks/gains.json]

``gains.yaml`` holds the rows: a question, and the recipes, with overrides, that answer it. Each is
run whole over its seeds, as ``instil run`` would, after ``instil record`` where it has a store, and
its numbers are those of its ``result.json``: the last epoch on the test split.
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

from instil import catalogue, recipe
from instil.capabilities import EvaluatesRobustness
from instil.files.atomic import atomic
from instil.plan.recording import record_outputs
from instil.plan.run import run

HERE = Path(__file__).parent
QUIET = ["export=false", "train.evaluate_every=1000"]
ARMS = ("teacher", "alone", "label_smoothing", "pseudo_labels", "noise", "blobs", "distilled")
WRITING = ("written_per_second", "writing_bytes")


def rows() -> list[tuple[str, str]]:
    """Question and command, in the order of the page."""
    asked: dict[str, list[str]] = yaml.safe_load((HERE / "gains.yaml").read_text(encoding="utf-8"))
    return [(question, command) for question, commands in asked.items() for command in commands]


def measured(command: str) -> dict[str, Any]:
    """What the run of a recipe, with its overrides, wrote down; what fails says why."""
    torch.set_num_threads(1)
    name, *options = command.split()
    began = time.perf_counter()
    try:
        with tempfile.TemporaryDirectory() as folder:
            made = recipe.load(
                str(HERE.parent / "src/instil/recipes" / f"{name}.yaml"), [*options, *QUIET]
            )
            if made.store is not None:
                made = made.model_copy(
                    update={
                        "store": made.store.model_copy(
                            update={"path": str(Path(folder) / made.store.path)}
                        )
                    }
                )
                record_outputs(made, Console(quiet=True))
            result = json.loads(
                (
                    run(made, Path(folder) / "run", None, Console(quiet=True)) / "result.json"
                ).read_text(encoding="utf-8")
            )
    except Exception as error:  # one recipe must not cost the table
        return {"command": command, "error": f"{type(error).__name__}: {error}"}
    kind = catalogue.find("scheme", made.scheme.type)
    trials = (
        kind.robustness_evaluations(made.scheme.options)
        if issubclass(kind, EvaluatesRobustness)
        else {}
    )
    metrics = [result["headline"], *(metric for metric in trials if metric in result["distilled"])]
    kept = {
        key: result[key]
        for key in ("headline", "scheme", "seeds", "gain", "gains", *ARMS)
        if key in result
    }
    return {
        "command": command,
        "metrics": metrics,
        **kept,
        "writing": {
            arm: {key: one[key] for key in WRITING}
            for arm, one in result["details"].items()
            if set(WRITING) <= one.keys()
        },
        "parameters": result["cost"]["student"]["parameters"],
        "seconds": round(time.perf_counter() - began),
    }


def line(row: dict[str, Any]) -> str:
    """A row as text."""
    if "error" in row:
        return f"{row['command']:60} {row['error']}"
    headline = row["headline"]
    scale = 1 if headline == "perplexity" else 100
    arms = "  ".join(
        f"{name} {scale * row[name][headline]['mean']:.1f}" for name in ARMS if name in row
    )
    return f"{row['command']:60} {arms}  ({row['seconds']} s)"


def write(path: Path | None, found: dict[str, dict[str, Any]]) -> None:
    """The table, without rows that are no longer asked for."""
    if path:
        done = [
            found[command] | {"question": question}
            for question, command in rows()
            if "error" not in found.get(command, {"error"})
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
            "only the rows of these recipes, such as classification/kd; 'missing': those without a "
            "number"
        ),
    )
    parser.add_argument(
        "--json",
        type=Path,
        help="write the table there too; rows that are there already and were not asked for stay",
    )
    parser.add_argument("--processes", type=int, default=1)
    given = parser.parse_args()
    found: dict[str, dict[str, Any]] = {}
    if given.json and given.json.exists():
        found = {
            row["command"]: row
            for row in json.loads(given.json.read_text(encoding="utf-8"))["rows"]
        }
    commands = dict.fromkeys(command for _, command in rows())
    if given.recipes:
        there = set(found) if "missing" in given.recipes else set(commands)
        commands = {
            command: None
            for command in commands
            if command not in there or command.split()[0] in given.recipes
        }
    with ProcessPoolExecutor(given.processes, mp_context=get_context("spawn")) as pool:
        for done in as_completed([pool.submit(measured, command) for command in commands]):
            row = done.result()
            found[row["command"]] = row
            print(line(row), flush=True)
            write(given.json, found)
    return 1 if any("error" in row for row in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
