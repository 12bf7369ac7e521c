"""Search with a fifth of the cost of an exhaustive search, on eight real tasks.

python benchmarks/proof.py exhaustive [TASK ...] --data FOLDER --work FOLDER [--jobs 2]
python benchmarks/proof.py search [TASK ...] --data FOLDER --work FOLDER [--jobs 2]

``proof/prepare.py`` writes the data; ``proof/TASK.yaml`` are the recipes. The exhaustive search
trains every applicable method with three seeds and is written to ``proof/exhaustive/TASK.json``.
Then ``search`` runs with a share of its steps and five study seeds, next to a random search of the
same cost, and ``proof/searches/TASK.json`` has the regret of each. Both continue a stopped run with
the same ``--work`` folder.

The regret of a method is the difference of its test score from that of the best method, both of the
exhaustive search.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from instil import recipe as recipes
from instil.files.atomic import atomic
from instil.plan.statistics import paired_gain
from instil.search import search as searches

HERE = Path(__file__).parent / "proof"
TASKS = ("images", "emoji", "speech", "text", "graph", "points", "tabular", "language")
NUM_SEEDS = 3
NUM_STUDIES = 5
STRATEGIES = ("halving", "random")
SHARE = 0.2
"""Steps of a search relative to those of the exhaustive search."""
CHECKPOINTS = (0.05, 0.1, 0.15, 0.2)
"""Shares of the exhaustive cost at which the regret is read."""


def exhaustive(task: str, data: Path, work: Path, num_jobs: int) -> dict[str, Any]:
    """Train all methods of a task and return their scores."""
    settings = searches.Settings(strategy="exhaustive", num_seeds=NUM_SEEDS)
    outcome = run(task, data, work / "exhaustive" / task, num_jobs, settings)
    keys = ("name", "kind", "validation", "test")
    arms = {row["name"]: {key: row[key] for key in keys} for row in outcome["finalists"]}
    names = ("headline", "higher_is_better", "steps", "seconds", "refused")
    seconds = {arm["name"]: arm["step_seconds"] for arm in outcome["arms"]}
    return {
        **{name: outcome[name] for name in names},
        "teacher": outcome["teacher"],
        "step_seconds": seconds,
        "arms": arms,
    }


def studies(
    task: str, data: Path, work: Path, num_jobs: int, everything: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Yield the result of each search with a share of the exhaustive steps.

    Args:
        task: name of the task.
        data: folder of its data.
        work: folder of the searches.
        num_jobs: number of processes.
        everything: result of ``exhaustive``.
    """
    for strategy in STRATEGIES:
        for seed in range(NUM_STUDIES):
            settings = searches.Settings(
                max_steps=int(SHARE * everything["steps"]),
                strategy=strategy,
                num_seeds=1,
                seed=seed,
            )
            folder = work / "searches" / f"{task}-{strategy}-{seed}"
            outcome = run(task, data, folder, num_jobs, settings)
            yield {
                "strategy": strategy,
                "seed": seed,
                "winner": outcome["winner"],
                "steps": outcome["steps"],
                "seconds": outcome["seconds"],
                **regret(everything, outcome["winner"]),
                "curve": regret_curve(everything, outcome["trials"]),
            }


def run(
    task: str, data: Path, folder: Path, num_jobs: int, settings: searches.Settings
) -> dict[str, Any]:
    """Start, continue or read a search."""
    finished = folder / "search.json"
    if finished.exists():
        outcome: dict[str, Any] = json.loads(finished.read_text(encoding="utf-8"))
        return outcome
    if (folder / searches.STATE).exists():
        return searches.resume(folder, Console(), num_jobs)
    shutil.rmtree(folder, ignore_errors=True)  # stopped before its first trial
    # The recipe stands next to its data, to which its paths are relative.
    shutil.copy(HERE / f"{task}.yaml", data / f"{task}.yaml")
    recipe = recipes.load(str(data / f"{task}.yaml"))
    recipe = recipe.model_copy(update={"seeds": [100 * (settings.seed + 1)]})
    return searches.start(recipe, settings, folder, Console(), num_jobs)


def regret(everything: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the regret of a method, and whether it is within the noise of the best one.

    Args:
        everything: result of ``exhaustive``.
        name: name of the method.

    Returns:
        ``best``, ``regret`` (>= 0) and ``within_noise``: the 95 % interval of the paired difference
        contains zero.
    """
    arms = everything["arms"]
    sign = 1 if everything["higher_is_better"] else -1
    best = max(arms, key=lambda arm: sign * arms[arm]["test"]["mean"])
    gain = paired_gain(arms[best]["test"]["values"], arms[name]["test"]["values"], sign > 0)
    return {
        "best": best,
        "regret": gain["mean"],
        "within_noise": name == best or not gain["significant"],
    }


def regret_curve(
    everything: Mapping[str, Any], trials: Sequence[Mapping[str, Any]]
) -> list[float | None]:
    """Return the regret of the best method so far after each share of ``CHECKPOINTS``.

    The best method so far is that with the best validation score in the latest round; None before
    the first trial has ended.
    """
    sign = 1 if everything["higher_is_better"] else -1
    spent = 0
    incumbent: tuple[int, float, str] | None = None
    points: list[tuple[float, float | None]] = [(0.0, None)]
    for trial in trials:
        is_stopped = trial["status"] == "stopped"
        spent += trial["curve"][-1][0] if is_stopped else trial["num_steps"]
        if trial["score"] is not None and not is_stopped and trial["arm"] in everything["arms"]:
            order = len(trials) if trial["round"] < 0 else trial["round"]
            entry = (order, sign * trial["score"], trial["arm"])
            incumbent = max(incumbent, entry) if incumbent else entry
        current = regret(everything, incumbent[2])["regret"] if incumbent else None
        points.append((spent / everything["steps"], current))
    return [[value for cost, value in points if cost <= share][-1] for share in CHECKPOINTS]


def main() -> None:
    """Run the part of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=("exhaustive", "search"))
    parser.add_argument("tasks", nargs="*", default=list(TASKS), metavar="TASK")
    parser.add_argument("--data", type=Path, required=True, help="folder of proof/prepare.py")
    parser.add_argument("--work", type=Path, required=True, help="folder of the searches")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    options = parser.parse_args()
    for task in options.tasks:
        if options.part == "exhaustive":
            write(task, "exhaustive", exhaustive(task, options.data, options.work, options.jobs))
            continue
        everything = json.loads((HERE / "exhaustive" / f"{task}.json").read_text(encoding="utf-8"))
        rows = studies(task, options.data, options.work, options.jobs, everything)
        write(task, "searches", list(rows))


def write(task: str, part: str, content: Any) -> None:
    """Write a result as JSON."""
    path = HERE / part / f"{task}.json"
    path.parent.mkdir(exist_ok=True)
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
