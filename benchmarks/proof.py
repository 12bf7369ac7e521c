"""Search with a fifth of the cost of an exhaustive search, on eight real tasks.

python benchmarks/proof.py PART [TASK ...] --data FOLDER --work FOLDER
python benchmarks/proof.py random [TASK ...]

``proof/prepare.py`` writes the data; ``proof/TASK.yaml`` are the recipes. The exhaustive search
trains every applicable method with three seeds and is written to ``proof/exhaustive/TASK.json``.
Then ``search`` halves over steps with a share of its steps and five study seeds, and
``proof/searches/TASK.json`` has the regret of each. ``seeds`` does the same with halving over
seeds, the default for labels that are classes, and writes ``proof/seeds/TASK.json``. Its model of
gain is fitted without the task and tasks of the same data. All continue a stopped run with the
same ``--work`` folder.

``random`` simulates random searches of the same cost and writes ``proof/random/TASK.json``. It
needs no training, and is exact. A trial of a random search over methods is a training of the
exhaustive search: same recipe, published options, all steps, one of its seeds.

``students`` does both for students: the exhaustive search trains every student that keeps a share
of the teacher's quality or not, and searches with a share of its steps choose the smallest that
does. ``proof/students/TASK.json`` compares the sizes.

The regret of a method is the difference of its mean test score from that of the best method, both
of the exhaustive search. The best of many methods was also lucky with its seeds. ``confirm`` trains
it, the chosen methods and ``dist`` with ten new seeds, and writes ``proof/confirmed/TASK.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from rich.console import Console

from instil import recipe as recipes
from instil.files.json_files import write_json
from instil.plan.statistics import paired_gain
from instil.search import search as searches
from instil.search.rounds import Schedule
from instil.search.schedule import plan_random, plan_schedule

HERE = Path(__file__).parent / "proof"
PARTS = ("exhaustive", "search", "seeds", "random", "confirm", "students")
TASKS = ("images", "emoji", "speech", "text", "graph", "points", "tabular", "language")
KEEP = {"images": 0.9, "speech": 0.9, "points": 0.8}
"""Share of the teacher's quality that the chosen student keeps. No student keeps 0.9 on points."""
SEARCHES = ("searches", "seeds")
"""Parts whose results are chosen methods."""
NUM_SEEDS = 3
NUM_STUDIES = 5
NUM_NEW_SEEDS = 10
"""New seeds of the best and the chosen methods."""
RECOMMENDED = "dist"
"""Method that docs/choose.md recommends; it has new seeds, too."""
NUM_DRAWS = 2000
"""Simulated random searches of a task."""
RELATED = {"images": ("classification",), "text": ("text_classification",)}
"""Tasks of ``methods.json`` with data of the same kind."""
SHARE = 0.2
"""Steps of a search relative to those of the exhaustive search."""
CHECKPOINTS = tuple(percent / 100 for percent in range(2, 21, 2))
"""Shares of the exhaustive cost at which the regret is read."""
QUANTILES = {"low": 0.05, "median": 0.5, "high": 0.95}
"""Quantiles of the simulated searches by name."""

Curve = list[tuple[float, float | None]]
"""Share of the exhaustive cost, and regret; None before the first trial has ended."""


def exhaustive(task: str, data: Path, work: Path, num_jobs: int) -> dict[str, Any]:
    """Train all methods of a task and return their scores."""
    settings = searches.Settings(strategy="exhaustive", num_seeds=NUM_SEEDS)
    outcome = run(task, data, work / "exhaustive" / task, num_jobs, settings)
    keys = ("name", "kind", "validation", "test")
    arms = {row["name"]: {key: row[key] for key in keys} for row in outcome["finalists"]}
    names = ("headline", "higher_is_better", "steps", "seconds", "refused", "teacher", "signals")
    return {
        **{name: outcome[name] for name in names},
        "step_seconds": {arm["name"]: arm["step_seconds"] for arm in outcome["arms"]},
        "arm_signals": {arm["name"]: arm["signals"] for arm in outcome["arms"]},
        "arms": arms,
    }


def studies(
    task: str, data: Path, work: Path, num_jobs: int, **settings: Any
) -> Iterator[dict[str, Any]]:
    """Yield the result of each search with a share of the exhaustive steps.

    Args:
        task: name of a task whose exhaustive search is finished.
        data: folder of its data.
        work: folder of the searches.
        num_jobs: number of processes.
        **settings: further settings of the searches.
    """
    everything = read("exhaustive", task)
    regrets = all_regrets(everything)
    for seed in range(NUM_STUDIES):
        max_steps = int(SHARE * everything["steps"])
        own = searches.Settings(max_steps=max_steps, num_seeds=1, seed=seed, **settings)
        outcome = run(task, data, work / f"{task}-{seed}", num_jobs, own)
        yield {
            "seed": seed,
            "winner": outcome["winner"],
            "steps": outcome["steps"],
            "seconds": outcome["seconds"],
            **regrets[outcome["winner"]],
            "curve": regret_curve(everything, outcome["trials"], regrets),
        }


def fit_prior(task: str, folder: Path) -> str:
    """Fit the model of gain without a task, and return its file."""
    import signals

    own = (task, *RELATED.get(task, ()))
    others = [study for study in signals.finished_studies() if study.task not in own]
    path = folder / f"{task}.json"
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, signals.shipped_model(others, ("signals", "kind", "method")))
    return str(path)


def confirm(task: str, data: Path, work: Path, num_jobs: int) -> dict[str, Any]:
    """Train the best, the recommended and the chosen methods and the references with new seeds.

    Args:
        task: task whose exhaustive search and searches are finished. Scores of methods that were
            trained with the new seeds before are kept.
        data: folder of its data.
        work: folder of the searches.
        num_jobs: number of processes.

    Returns:
        ``best`` of the exhaustive search; ``test``, scores by method; and ``gains``, by chosen
        method: the paired gain over ``best``. The regret is its negative mean.
    """
    everything = read("exhaustive", task)
    best = best_of(everything)
    earlier = read("confirmed", task)["test"] if exists("confirmed", task) else {}
    chosen = sorted({row["winner"] for part in SEARCHES for row in read_rows(part, task)})
    recommended = {RECOMMENDED} & set(everything["arms"])
    missing = {best, *recommended, *chosen} - set(earlier)
    test = earlier | (_new_scores(task, missing, data, work, num_jobs) if missing else {})
    values = {name: scores["values"] for name, scores in test.items()}
    higher = everything["higher_is_better"]
    gains = {name: paired_gain(values[name], values[best], higher) for name in chosen}
    return {"best": best, "test": test, "gains": gains}


def _new_scores(
    task: str, names: Collection[str], data: Path, work: Path, num_jobs: int
) -> dict[str, Any]:
    """Train methods, and the references, with the new seeds, and return their test scores."""
    arms = read("exhaustive", task)["arms"]
    settings = searches.Settings(
        strategy="exhaustive",
        candidates=tuple(sorted(name for name in names if is_candidate(arms, name))),
        num_seeds=NUM_NEW_SEEDS,
        seed=NUM_STUDIES,
    )
    folder = work / "confirmed" / f"{task}-{'-'.join(settings.candidates or ())}"
    outcome = run(task, data, folder, num_jobs, settings)
    return {row["name"]: row["test"] for row in outcome["finalists"]}


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


def students(task: str, data: Path, work: Path, num_jobs: int) -> dict[str, Any]:
    """Return the students of an exhaustive search, and the choices of searches with a share of it.

    Args:
        task: name of the task.
        data: folder of its data.
        work: folder of the searches.
        num_jobs: number of processes.
    """
    # The exhaustive search has no students of further sizes.
    common: dict[str, Any] = {"over": ("students",), "keep": KEEP[task], "num_refinements": 0}
    settings = searches.Settings(strategy="exhaustive", num_seeds=NUM_SEEDS, **common)
    everything = run(task, data, work / "students" / task, num_jobs, settings)
    outcomes = []
    for seed in range(NUM_STUDIES):
        max_steps = int(SHARE * everything["steps"])
        settings = searches.Settings(max_steps=max_steps, num_seeds=1, seed=seed, **common)
        folder = work / "students" / f"{task}-{seed}"
        outcomes.append(run(task, data, folder, num_jobs, settings))
    return compare_students(everything, outcomes)


def compare_students(
    everything: Mapping[str, Any], outcomes: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Compare the students that searches chose with the choice of an exhaustive search.

    Args:
        everything: result of an exhaustive search over students.
        outcomes: results of searches.

    Returns:
        ``students`` with their bytes and scores, ``winner`` of the exhaustive search and, for each
        of the ``searches``, its ``winner``, ``size`` relative to that of the exhaustive search and
        ``share``: test score of all seeds relative to that of the teacher.
    """
    keys = ("bytes", "latency_ms", "validation", "test")
    rows = {row["name"]: {key: row[key] for key in keys} for row in everything["finalists"]}
    teacher = everything["teacher"]["score"]
    smallest = rows[everything["winner"]]["bytes"]
    choices = []
    for outcome in outcomes:
        name = outcome["winner"]
        choices.append(
            {
                "winner": name,
                "is_met": outcome["keep"]["is_met"],
                "size": rows[name]["bytes"] / smallest,
                "share": rows[name]["test"]["mean"] / teacher,
                "steps": outcome["steps"],
                "seconds": outcome["seconds"],
            }
        )
    names = ("headline", "higher_is_better", "steps", "seconds", "keep", "winner", "teacher")
    facts = {name: everything[name] for name in names}
    return {**facts, "refused": everything["refused"], "students": rows, "searches": choices}


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
    best = best_of(everything)
    higher = everything["higher_is_better"]
    gain = paired_gain(arms[best]["test"]["values"], arms[name]["test"]["values"], higher)
    return {
        "best": best,
        "regret": gain["mean"],
        "within_noise": name == best or not gain["significant"],
    }


def best_of(everything: Mapping[str, Any]) -> str:
    """Return the method with the best mean test score of the exhaustive search."""
    arms = everything["arms"]
    sign = 1 if everything["higher_is_better"] else -1
    return max(arms, key=lambda arm: sign * arms[arm]["test"]["mean"])


def all_regrets(everything: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return ``regret`` of every method of the exhaustive search."""
    return {name: regret(everything, name) for name in everything["arms"]}


def regret_curve(
    everything: Mapping[str, Any],
    trials: Sequence[Mapping[str, Any]],
    regrets: Mapping[str, Mapping[str, Any]],
) -> Curve:
    """Return the regret of the best method so far after each share of ``CHECKPOINTS``.

    The best method so far is that of the latest round with the best mean validation score. The mean
    is over its trainings with the same number of steps, as for the winner of a search.

    Args:
        everything: result of ``exhaustive``.
        trials: trials of a search in their order.
        regrets: result of ``all_regrets``.
    """
    sign = 1 if everything["higher_is_better"] else -1
    spent = 0
    scores: dict[tuple[str, int], list[float]] = {}
    leaders: dict[str, tuple[int, float, str]] = {}
    points: list[tuple[float, str | None]] = [(0.0, None)]
    for trial in trials:
        is_stopped = trial["status"] == "stopped"
        spent += trial["curve"][-1][0] if is_stopped else trial["num_steps"]
        if trial["score"] is not None and not is_stopped and trial["arm"] in regrets:
            order = len(trials) if trial["round"] < 0 else trial["round"]
            own = scores.setdefault((trial["arm"], trial["num_steps"]), [])
            own.append(sign * trial["score"])
            leaders[trial["arm"]] = (order, fmean(own), trial["arm"])
        leader = max(leaders.values())[2] if leaders else None
        points.append((spent / everything["steps"], leader))
    curve: Curve = []
    for share in CHECKPOINTS:
        name = [arm for cost, arm in points if cost <= share][-1]
        curve.append((share, None if name is None else regrets[name]["regret"]))
    return curve


def random_searches(everything: Mapping[str, Any], num_draws: int = NUM_DRAWS) -> dict[str, Any]:
    """Simulate random searches with the cost of a search, from the exhaustive scores.

    A random search trains the reference arms and a random subset of the candidates once with all
    steps. The best candidates on validation data and the references are trained again with
    another seed, and the best mean of both trainings on validation data wins. The numbers of
    candidates and finalists are those that the budget of the search affords. As in a search, all
    trials of a round share one seed.

    Args:
        everything: result of ``exhaustive``.
        num_draws: number of simulated searches.

    Returns:
        ``regret`` has the mean and the quantiles over the draws. ``within_noise`` is a share of the
        draws. ``curve`` has the mean, low and high quantile of the regret by share of the cost. The
        other keys are the size of a search.
    """
    schedule = random_schedule(everything)
    regrets = all_regrets(everything)
    results = []
    curves = []
    for draw in range(num_draws):
        trials = random_trials(everything, schedule, random.Random(draw))
        results.append(regrets[winner_of(everything, trials)])
        curves.append([value for _, value in regret_curve(everything, trials, regrets)])
    curve = []
    for index, share in enumerate(CHECKPOINTS):
        values = [one[index] for one in curves if one[index] is not None]
        # Before the first trial of all draws has ended, a mean would be that of some draws only.
        if len(values) == num_draws:
            facts = summary(values)
            curve.append([share, facts["mean"], facts["low"], facts["high"]])
    return {
        "draws": num_draws,
        "candidates": schedule.rungs[0].num_candidates,
        "references": schedule.num_references,
        "finalists": schedule.num_finalists,
        "steps": schedule.total_steps,
        "regret": summary([one["regret"] for one in results]),
        "within_noise": sum(one["within_noise"] for one in results) / num_draws,
        "curve": curve,
    }


def random_schedule(everything: Mapping[str, Any]) -> Schedule:
    """Return the schedule of a random search with the steps of a search with ``SHARE``."""
    names = list(everything["step_seconds"])
    num_references = sum(is_reference(everything, name) for name in names)
    schedule = plan_schedule(
        len(names) - num_references,
        num_references,
        everything["steps"] // (NUM_SEEDS * len(names)),
        int(SHARE * everything["steps"]),
        num_seeds=1,
    )
    return plan_random(schedule)


def is_reference(everything: Mapping[str, Any], name: str) -> bool:
    """Whether an arm takes part in every search: baselines and knowledge distillation."""
    return name == "kd" or everything["arms"].get(name, {}).get("kind") == "baseline"


def is_candidate(arms: Mapping[str, Any], name: str) -> bool:
    """Whether an arm takes part in a search only if it is a candidate."""
    return name != "kd" and arms[name]["kind"] not in ("baseline", "recipe")


def random_trials(
    everything: Mapping[str, Any], schedule: Schedule, generator: random.Random
) -> list[dict[str, Any]]:
    """Return the trials of one random search, with scores of the exhaustive search.

    Args:
        everything: result of ``exhaustive``.
        schedule: result of ``random_schedule``.
        generator: source of the random choices.
    """
    names = list(everything["step_seconds"])
    references = [name for name in names if is_reference(everything, name)]
    candidates = [name for name in names if name not in references]
    count = min(len(candidates), schedule.rungs[0].num_candidates)
    drawn = [*generator.sample(candidates, count), *references]
    # Otherwise the references would always come last on the curve.
    generator.shuffle(drawn)
    first_seed, final_seed = generator.sample(range(NUM_SEEDS), 2)

    def trial(name: str, round_index: int, seed: int) -> dict[str, Any]:
        # An arm that failed in the exhaustive search costs its steps, and never leads.
        arm = everything["arms"].get(name)
        return {
            "arm": name,
            "round": round_index,
            "score": arm["validation"]["values"][seed] if arm else None,
            "num_steps": schedule.final_steps,
            "status": "complete" if arm else "failed",
        }

    trials = [trial(name, 0, first_seed) for name in drawn]
    sign = 1 if everything["higher_is_better"] else -1
    finished = [one for one in trials if one["score"] is not None and one["arm"] in candidates]
    ranked = sorted(finished, key=lambda one: -sign * one["score"])
    finalists = [one["arm"] for one in ranked[: schedule.num_finalists]]
    return trials + [trial(name, -1, final_seed) for name in [*finalists, *references]]


def winner_of(everything: Mapping[str, Any], trials: Sequence[Mapping[str, Any]]) -> str:
    """Return the finalist with the best mean validation score of its trainings."""
    sign = 1 if everything["higher_is_better"] else -1
    finals = {one["arm"] for one in trials if one["round"] < 0 and one["score"] is not None}

    def mean_score(name: str) -> float:
        # As in a search, trainings of the round that have all steps are further seeds.
        return float(np.mean([one["score"] for one in trials if one["arm"] == name]))

    return max(sorted(finals), key=lambda name: sign * mean_score(name))


def summary(values: Sequence[float]) -> dict[str, float]:
    """Return the mean and the quantiles of ``QUANTILES``."""
    quantiles = {name: float(np.quantile(values, share)) for name, share in QUANTILES.items()}
    return {"mean": float(np.mean(values)), **quantiles}


def main() -> None:
    """Run the part of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("tasks", nargs="*", metavar="TASK", help="default: all tasks of the part")
    parser.add_argument("--data", type=Path, help="folder of proof/prepare.py")
    parser.add_argument("--work", type=Path, help="folder of the searches")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    options = parser.parse_args()
    if options.part != "random" and not (options.data and options.work):
        parser.error(f"{options.part}: expected --data FOLDER and --work FOLDER")
    folders = options.data, options.work
    for task in options.tasks or (KEEP if options.part == "students" else TASKS):
        if options.part in ("search", "random"):
            write(task, "random", random_searches(read("exhaustive", task)))
        if options.part == "search":
            kinds = {"strategy": "halving", "prior": "none"}
            rows = studies(task, options.data, options.work / "searches", options.jobs, **kinds)
            write(task, "searches", list(rows))
        if options.part == "seeds":
            kinds = {"strategy": "seeds", "prior": fit_prior(task, options.work / "models")}
            rows = studies(task, options.data, options.work / "seeds", options.jobs, **kinds)
            write(task, "seeds", list(rows))
        if options.part == "exhaustive":
            write(task, "exhaustive", exhaustive(task, *folders, options.jobs))
        if options.part == "confirm":
            write(task, "confirmed", confirm(task, *folders, options.jobs))
        if options.part == "students":
            write(task, "students", students(task, *folders, options.jobs))


def read(part: str, task: str) -> Any:
    """Read a result."""
    return json.loads((HERE / part / f"{task}.json").read_text(encoding="utf-8"))


def read_rows(part: str, task: str) -> list[Any]:
    """Read the rows of a result; none if it was not measured."""
    return list(read(part, task)) if exists(part, task) else []


def exists(part: str, task: str) -> bool:
    """Whether a part of the proof was measured."""
    return (HERE / part / f"{task}.json").exists()


def write(task: str, part: str, content: Any) -> None:
    """Write a result as JSON."""
    path = HERE / part / f"{task}.json"
    path.parent.mkdir(exist_ok=True)
    write_json(path, content)


if __name__ == "__main__":
    main()
