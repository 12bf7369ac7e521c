"""Every objective of the catalogue on the smallest recipe of its task: does it help there, and what
does a step cost?

python benchmarks/methods.py [NAME ...] [--processes 2] [--json benchmarks/methods.json]

Each stands in the place of ``kd`` (of all that learns from the teacher, where a recipe has no
``kd``), beside the label loss. One rule sets all weights, so that none is chosen by its result: on
the first batch, the gradient by the student's parameters is as long as that of ``kd`` (of the label
loss, where there is none). The options are the defaults. Accuracy (or the task's own metric) is of
the last epoch on the test split, over seeds 0, 1 and 2. Time is the least of the steps, measured in
turn with ``kd``; memory is what the student's step keeps for its backward pass, adapters and
memories included.
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
HOLD_THE_LABEL = ("ps_kd", "pld")
"""Losses that have the label's part within."""
LOADERS = {
    "cs_kd": ["sampler=class_pairs"],
    "dlb": ["sampler=last_batch"],
    "ddgsd": ["sampler=two_views", "augment.crop=1"],
}
"""Objectives that learn from other samples, or other looks at one, in the same batch."""
ALONE, REFERENCE = (
    "alone",
    "reference",
)  # the student on the labels' loss; the task's recipe as it is


def task_of(name: str) -> str | None:
    """The first task on the card that has a recipe here; None without one."""
    tasks = catalogue.find("objective", name).card.tasks
    return next((task for task in tasks if task in RECIPES), None)


def scheme_of(name: str) -> list[str]:
    """Override with the scheme of the objective's own recipe, if that trains with a teacher."""
    own = own_recipe(name)
    scheme = "offline" if own is None else recipe.load(own).scheme.type
    learns_from_teacher = catalogue.find("scheme", scheme).card.source == "offline"
    return [f"scheme={scheme}"] if learns_from_teacher and scheme != "offline" else []


def rows() -> list[tuple[str, str]]:
    """Task and name: of each task alone and the reference, then all objectives that learn from more
    than labels.
    """
    cards = {name: catalogue.find("objective", name).card for name in catalogue.files("objective")}
    found = [
        (task_of(name), name)
        for name, card in cards.items()
        if card.source != "labels" and name != "kd" and not needs_several_labels(name)
    ]
    return [
        (task, name)
        for task in RECIPES
        for name in (ALONE, REFERENCE, *(name for own, name in found if own == task))
    ]


def recipe_of(task: str, name: str, weight: float = 1.0) -> Recipe:
    """The task's recipe with this objective in the place of what learns from the teacher there."""
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
    if name in HOLD_THE_LABEL:
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
    )  # a third: more leaves nothing to tell apart
    return recipe.load(
        RECIPES[task],
        [*options, f"seeds={SEEDS}", "baselines=[]", "export=false", "train.evaluate_every=1000"],
    )


def prepared(made: Recipe) -> tuple[Scheme, list[Batch]]:
    """The scheme of a recipe with an untrained teacher, and its first batches, with their clock."""
    experiment = Experiment.from_recipe(made)
    torch.manual_seed(0)
    student = build_network(made.student, experiment, "student")
    nets = [
        build_network(spec, teacher_training_data(experiment, spec, number), "teacher")
        for number, spec in enumerate(made.teachers)
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
            experiment.loader(experiment.train_data(0), sampler=made.data.sampler),
            range(4),
            strict=False,
        )
    ]
    scheme.prepare(batches[0])
    return scheme, batches


def pull(made: Recipe, loss: str) -> float:
    """Length of the gradient of one loss by the student's parameters, on the first batch that gives
    it one.
    """
    scheme, batches = prepared(made)
    parameters = [p for p in scheme.student.parameters() if p.requires_grad]
    for batch in [*batches, *batches]:  # what learns from the step before has nothing in the first
        (update,) = scheme.step(batch)
        gradients = torch.autograd.grad(update.losses[loss], parameters, allow_unused=True)
        length = sum(float(g.square().sum()) for g in gradients if g is not None) ** 0.5
        with torch.no_grad():
            scheme.after_step(update.state_updates)
        if length > 0:
            return length
    raise RuntimeError(f"{loss} gives the student no gradient")


def weight_of(task: str, name: str) -> float:
    """With which the gradient is as long as that of kd (where the task has none: of its label
    loss), to two digits.
    """
    own = recipe.load(RECIPES[task]).objectives
    reference = "kd" if "kd" in own else next(iter(own))
    return float(
        f"{pull(recipe_of(task, REFERENCE), reference) / pull(recipe_of(task, name), name):.1e}"
    )


def trained(task: str, name: str) -> dict[str, Any]:
    """The test metric of every seed, with the weight that the rule gives."""
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
    """Time and memory of a step, as a ratio to the reference's."""
    sides = [prepared(recipe_of(task, one)) for one in (name, REFERENCE)]
    engines = [Engine("cpu") for _ in sides]
    for engine, (scheme, _) in zip(engines, sides, strict=True):
        engine.setup(scheme, lambda _: Optimization("sgd", {"lr": 1e-4}))
    kept = [saved(scheme, batches[-1]) for scheme, batches in sides]
    seconds: list[list[float]] = [[], []]
    for turn in range(30):
        for side, (scheme, batches) in enumerate(sides):
            start = time.perf_counter()
            train_step(engines[side], scheme, [batches[-1]])
            seconds[side] += [time.perf_counter() - start] if turn > 4 else []
    return {
        "time": round(min(seconds[0]) / min(seconds[1]), 2),
        "memory": round(kept[0] / kept[1], 2),
    }


def saved(scheme: Scheme, batch: Batch) -> int:
    """Bytes that one step keeps: for its backward pass, and in adapters and memories."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        updates = list(scheme.step(batch))
    own = sum(
        t.numel() * t.element_size()
        for t in (*scheme.objectives.parameters(), *scheme.objectives.buffers())
    )
    del updates
    return sum(kept.values()) + own


def measured(row: tuple[str, str]) -> dict[str, Any]:
    """One row of the table; what fails says why."""
    torch.set_num_threads(1)
    task, name = row
    try:
        return {"task": task, "name": name, **trained(task, name)}
    except Exception as error:  # one method must not cost the table
        return {"task": task, "name": name, "error": f"{type(error).__name__}: {error}"}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="only these objectives")
    parser.add_argument(
        "--json",
        type=Path,
        help="write the table there too; rows that are there already and were not asked for stay",
    )
    parser.add_argument("--processes", type=int, default=1)
    given = parser.parse_args()
    chosen = [row for row in rows() if not given.names or row[1] in given.names]
    found: dict[str, dict[str, Any]] = {}
    if given.json and given.json.exists():
        found = {
            f"{row['task']}/{row['name']}": row
            for row in json.loads(given.json.read_text())["rows"]
        }
    for start in RECIPES:  # the teachers, once, before processes ask for them
        if any(task == start for task, _ in chosen):
            trained_teacher(start)
    with ProcessPoolExecutor(given.processes, mp_context=get_context("spawn")) as pool:
        for row in pool.map(measured, chosen):
            found[f"{row['task']}/{row['name']}"] = row
            print(line(row), flush=True)
            write(given.json, found)
    for task, name in chosen:
        row = found[f"{task}/{name}"]
        if "error" not in row:
            row |= cost(task, name)
            print(line(row), flush=True)
    write(given.json, found)
    return 1 if any("error" in row for row in found.values()) else 0


def write(path: Path | None, found: dict[str, dict[str, Any]]) -> None:
    """The table in its own order."""
    if path:
        ordered = [found[key] for task, name in rows() if (key := f"{task}/{name}") in found]
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
    """A row as text."""
    if "error" in row:
        return f"{row['task']:20} {row['name']:26} {row['error']}"
    ratios = f"  time x{row['time']:.2f}  memory x{row['memory']:.2f}" if "time" in row else ""
    return (
        f"{row['task']:20} {row['name']:26} {100 * row['mean']:5.1f} ± {100 * row['std']:4.1f}  "
        f"weight {row['weight']:<8g}{ratios}"
    )


if __name__ == "__main__":
    sys.exit(main())
