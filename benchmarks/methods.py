"""Quality and cost of every objective of the catalogue on the smallest recipe of its task.

python benchmarks/methods.py [NAME ...] [--processes 2] [--json benchmarks/methods.json]

Each objective replaces ``kd``, or all losses on the teacher in a recipe without ``kd``; the label
loss remains. One rule sets all weights, so no weight is chosen by its result. On the first batch,
the gradient of the student's parameters has the norm of that of ``kd``, or of the label loss in a
recipe without ``kd``. All options are the defaults.

The metric is that of the last epoch on the test split over seeds 0, 1 and 2. Time is the
minimum over the steps, which alternate with those of the reference. Memory is the size of the
tensors that a step keeps for its backward pass, including adapters and memory banks.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from instil import catalogue, recipe
from instil.core import Batch, Scheme
from instil.engine import Engine, Optimization
from instil.experiment.experiment import Experiment
from instil.experiment.networks import build_network
from instil.experiment.schemes import build_scheme
from instil.experiment.teachers import combine_teachers, prepare_teacher, teacher_training_data
from instil.files.atomic import atomic
from instil.plan.run_folder import RunFolder
from instil.plan.runner import Runner
from instil.recipe.sections import Recipe
from instil.testing.recipes import (
    THREE_TEACHERS,
    needs_members,
    needs_several_labels,
    own_recipe,
    small_options,
)
from instil.training.step import train_step

ROOT = Path(__file__).parents[1]
OTHER_TASKS = (
    "segmentation",
    "text_classification",
    "node_classification",
    "image_text",
    "regression",
    "detection",
)
RECIPES = {
    "classification": "digits",
    **{task: str(ROOT / f"src/instil/recipes/{task}/{task}.yaml") for task in OTHER_TASKS},
}
SEEDS = [0, 1, 2]
INCLUDE_LABEL_LOSS = ("ps_kd", "pld")
"""Losses that contain the label loss."""
LOADERS = {
    "cs_kd": ["sampler=class_pairs"],
    "dlb": ["sampler=last_batch"],
    "ddgsd": ["sampler=two_views", "augment.crop=1"],
}
"""Objectives that need other samples or views in the same batch -> data options."""
ALONE = "alone"
"""Row of the student with the label loss only."""
REFERENCE = "reference"
"""Row of the unchanged recipe of the task."""


def task_of(name: str) -> str | None:
    """Return the first task of the card that has a recipe here; None without one."""
    tasks = catalogue.find("objective", name).card.tasks
    return next((task for task in tasks if task in RECIPES), None)


def scheme_of(name: str) -> list[str]:
    """Return an override with the scheme of the objective's recipe if it needs a teacher."""
    own = own_recipe(name)
    scheme = "offline" if own is None else recipe.load(own).scheme.type
    learns_from_teacher = catalogue.find("scheme", scheme).card.source == "offline"
    return [f"scheme={scheme}"] if learns_from_teacher and scheme != "offline" else []


def rows() -> list[tuple[str, str]]:
    """Return task and name of each row: alone, reference, and objectives except label losses."""
    cards = {name: catalogue.find("objective", name).card for name in catalogue.files("objective")}
    candidates = [
        (task_of(name), name)
        for name, card in cards.items()
        if card.source != "labels" and name != "kd" and not needs_several_labels(name)
    ]
    return [
        (task, name)
        for task in RECIPES
        for name in (ALONE, REFERENCE, *(name for own, name in candidates if own == task))
    ]


def recipe_of(task: str, name: str, weight: float = 1.0) -> Recipe:
    """Return the recipe of the task with this objective in place of its losses on the teacher."""
    sources = {
        key: catalogue.find("objective", goal.type).card.source
        for key, goal in recipe.load(RECIPES[task]).objectives.items()
    }
    options = []
    if name != REFERENCE:
        options += [
            f"objectives.{key}=null"
            for key, source in sources.items()
            if source != "labels" and key != name
        ]
    if name in INCLUDE_LABEL_LOSS:
        options += [
            f"objectives.{key}=null" for key, source in sources.items() if source == "labels"
        ]
    if name not in (ALONE, REFERENCE):
        options.append(f"objectives.{name}={{weight: {weight}}}")
        # The default number of heads does not fit the width of a tiny network.
        if "heads" in small_options(name):
            options.append(f"objectives.{name}.heads={small_options(name)['heads']}")
        if needs_members(name):
            options.append(THREE_TEACHERS)
        options += scheme_of(name)
    options += [f"data.{option}" for option in LOADERS.get(name, [])]
    options += (
        ["train.epochs=20", "teacher_train.epochs=40"] if task == "classification" else []
    )  # a third of the recipe: with more, all accuracies are near the maximum
    return recipe.load(
        RECIPES[task],
        [*options, f"seeds={SEEDS}", "baselines=[]", "export=false", "train.evaluate_every=1000"],
    )


def prepared(config: Recipe) -> tuple[Scheme, list[Batch]]:
    """Return the scheme of a recipe with an untrained teacher, and batches with their state."""
    experiment = Experiment.from_recipe(config)
    torch.manual_seed(0)
    student = build_network(config.student, experiment, "student")
    nets = [
        build_network(spec, teacher_training_data(experiment, spec, index), "teacher")
        for index, spec in enumerate(config.teachers)
    ]
    teacher = prepare_teacher(combine_teachers(experiment, nets), experiment)
    scheme = build_scheme(experiment, student, teacher)
    clock = {
        "step": torch.tensor(0),
        "progress": torch.tensor(0.5),
        "seed": torch.tensor(0),
        "epoch_ends": torch.tensor(False),
    }
    batches = [
        batch | clock
        for batch, _ in zip(
            experiment.loader(
                experiment.train_data(0), sampler=config.data.sampler, with_mixing=True
            ),
            range(4),
            strict=False,
        )
    ]
    scheme.prepare(batches[0])
    return scheme, batches


def gradient_norm(config: Recipe, loss: str) -> float:
    """Return the gradient norm of one loss on the first batch where it is not zero."""
    scheme, batches = prepared(config)
    parameters = [p for p in scheme.student.parameters() if p.requires_grad]
    # Losses on the previous step have no gradient in the first step.
    for batch in [*batches, *batches]:
        (update,) = scheme.step(batch)
        gradients = torch.autograd.grad(update.losses[loss], parameters, allow_unused=True)
        length = sum(float(g.square().sum()) for g in gradients if g is not None) ** 0.5
        with torch.no_grad():
            scheme.after_step(update.state_updates)
        if length > 0:
            return length
    raise RuntimeError(f"{loss} gives the student no gradient")


def weight_of(task: str, name: str) -> float:
    """Return the weight, with two digits, that gives the gradient norm of the reference loss."""
    own = recipe.load(RECIPES[task]).objectives
    reference = "kd" if "kd" in own else next(iter(own))
    norm = gradient_norm(recipe_of(task, REFERENCE), reference)
    return float(f"{norm / gradient_norm(recipe_of(task, name), name):.1e}")


def trained(task: str, name: str) -> dict[str, Any]:
    """Train with the weight of the rule and return mean and deviation of the test metric."""
    weight = 1.0 if name in (ALONE, REFERENCE) else weight_of(task, name)
    experiment = Experiment.from_recipe(recipe_of(task, name, weight))
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "checkpoint").mkdir()
        arms = Runner(experiment, RunFolder(Path(folder)), lambda *_: None)
        arms.teacher()
        values = [arms.student("distilled", seed).test[experiment.task.headline] for seed in SEEDS]
    return {
        "weight": weight,
        "metric": experiment.task.headline,
        "mean": statistics.mean(values),
        "std": statistics.stdev(values),
    }


def cost(task: str, name: str) -> dict[str, float]:
    """Return time and memory of a step relative to the reference."""
    sides = [prepared(recipe_of(task, one)) for one in (name, REFERENCE)]
    engines = [Engine("cpu") for _ in sides]
    for engine, (scheme, _) in zip(engines, sides, strict=True):
        engine.setup(scheme, lambda _: Optimization("sgd", {"lr": 1e-4}))
    num_bytes = [saved(scheme, batches[-1]) for scheme, batches in sides]
    seconds: list[list[float]] = [[], []]
    for turn in range(30):
        for side, (scheme, batches) in enumerate(sides):
            start = time.perf_counter()
            train_step(engines[side], scheme, [batches[-1]])
            seconds[side] += [time.perf_counter() - start] if turn > 4 else []
    return {
        "time": round(min(seconds[0]) / min(seconds[1]), 2),
        "memory": round(num_bytes[0] / num_bytes[1], 2),
    }


def saved(scheme: Scheme, batch: Batch) -> int:
    """Return the bytes that a step keeps for its backward pass, in adapters and in memory banks."""
    bytes_at: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        bytes_at[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        updates = list(scheme.step(batch))
    own = sum(
        t.numel() * t.element_size()
        for t in (*scheme.objectives.parameters(), *scheme.objectives.buffers())
    )
    del updates
    return sum(bytes_at.values()) + own


def measured(row: tuple[str, str]) -> dict[str, Any]:
    """Return one row of the table, with ``error`` if it fails."""
    torch.set_num_threads(1)
    task, name = row
    try:
        return {"task": task, "name": name, **trained(task, name)}
    except Exception as error:  # one failing method must not stop the table
        return {"task": task, "name": name, "error": f"{type(error).__name__}: {error}"}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="only these objectives")
    parser.add_argument(
        "--json",
        type=Path,
        help="also write the table to this file; its other rows are kept",
    )
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    chosen = [row for row in rows() if not options.names or row[1] in options.names]
    results: dict[str, dict[str, Any]] = {}
    if options.json and options.json.exists():
        results = {
            f"{row['task']}/{row['name']}": row
            for row in json.loads(options.json.read_text())["rows"]
        }
    # Train each teacher once, before several processes need it.
    for start in RECIPES:
        if any(task == start for task, _ in chosen):
            trained_teacher(start)
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        for row in pool.map(measured, chosen):
            results[f"{row['task']}/{row['name']}"] = row
            print(line(row), flush=True)
            write(options.json, results)
    for task, name in chosen:
        row = results[f"{task}/{name}"]
        if "error" not in row:
            row |= cost(task, name)
            print(line(row), flush=True)
    write(options.json, results)
    return 1 if any("error" in row for row in results.values()) else 0


def write(path: Path | None, results: dict[str, dict[str, Any]]) -> None:
    """Write the table in the order of ``rows``."""
    if path:
        ordered = [results[key] for task, name in rows() if (key := f"{task}/{name}") in results]
        with atomic(path) as temporary:
            temporary.write_text(
                json.dumps({"seeds": SEEDS, "torch": torch.__version__, "rows": ordered}, indent=1)
                + "\n"
            )


def trained_teacher(task: str) -> None:
    """Train the teacher of a task's recipe into the cache."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "checkpoint").mkdir()
        Runner(
            Experiment.from_recipe(recipe_of(task, REFERENCE)),
            RunFolder(Path(folder)),
            lambda *_: None,
        ).teacher()


def line(row: dict[str, Any]) -> str:
    """Format a row as text."""
    if "error" in row:
        return f"{row['task']:20} {row['name']:26} {row['error']}"
    ratios = f"  time x{row['time']:.2f}  memory x{row['memory']:.2f}" if "time" in row else ""
    return (
        f"{row['task']:20} {row['name']:26} {100 * row['mean']:5.1f} ± {100 * row['std']:4.1f}  "
        f"weight {row['weight']:<8g}{ratios}"
    )


if __name__ == "__main__":
    sys.exit(main())
