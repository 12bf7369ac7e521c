"""A recipe in, a run folder out."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape

from instil.core import Net, Scheme
from instil.engine import clear_rank_errors, init_distributed, rank
from instil.engine.processes import broadcast_object, run_on_first_rank
from instil.experiment import threads
from instil.experiment.device import on_device_of_recipe
from instil.experiment.dry_run import dry_run
from instil.experiment.experiment import Experiment
from instil.experiment.weighting_advice import weighting_advice
from instil.export.student import save_student
from instil.plan import results
from instil.plan import resume as begun
from instil.plan.arm_progress import ArmProgress, trainings
from instil.plan.arms import Arm, Arms
from instil.plan.environment import collect_environment
from instil.plan.mistakes import write_mistakes
from instil.plan.onnx_export import export_onnx
from instil.plan.run_folder import RunFolder
from instil.progress import RunProgress
from instil.recipe.sections import Recipe
from instil.report.page import write_report

log = logging.getLogger("instil")


@on_device_of_recipe
def run(recipe: Recipe, out: Path | None, resume: Path | None, console: Console) -> Path:
    """Train the teacher, then for every seed the baselines and the distilled student; write everything down.

    ``resume`` is the folder of a run that was stopped: what is finished there is not trained again. Raises ValueError for bad input before
    anything is trained; where a run fails or is stopped, its folder stays usable and says so.
    """
    init_distributed()
    out, resume = broadcast_object((out, resume))
    if (path := resume or out) is None:
        raise ValueError("a run needs a folder: out or resume")
    check = functools.partial(_check_folder, recipe, out, resume)
    lock = begun.Lock(path)
    with clear_rank_errors(f"Go on with: instil run --resume {path}"):
        run_on_first_rank(check)
        experiment, resumed = _rehearsed(recipe, RunFolder(path), console)
        try:
            # Only now: a recipe that is refused leaves no folder.
            run_on_first_rank(functools.partial(_enter, path, lock, check))
            return _run(experiment, RunFolder(path), resumed, console)
        finally:
            lock.release()


def _rehearsed(recipe: Recipe, folder: RunFolder, console: Console) -> tuple[Experiment, bool]:
    """The data of a recipe that was tried, and whether its run was begun before."""
    experiment = Experiment.from_recipe(recipe)
    *_, (_, scheme, _) = dry_run(experiment)
    resumed = _set_threads(folder)
    if not resumed:
        threads.choose_num_threads(scheme, next(iter(experiment.loader(experiment.samples))))
    if rank() == 0:
        for sentence in experiment.warnings:
            console.print(f"[yellow]Warning:[/yellow] {escape(sentence)}.", highlight=False)
        _tell_pairs(scheme, console)
        for stage in experiment.stages:
            for sentence in weighting_advice(stage):
                console.print(f"[yellow]Warning:[/yellow] {sentence}.", highlight=False)
    return experiment, resumed


def _check_folder(recipe: Recipe, out: Path | None, resume: Path | None) -> None:
    if resume is not None:
        begun.check_resumable(recipe, resume)
    elif out is not None:
        begun.check_new(out)


def _enter(path: Path, lock: begun.Lock, check: Callable[[], None]) -> None:
    """Lock the run folder, and delete what killed processes left there."""
    lock.take()
    # Another run may have written there while this one tried its recipe.
    check()
    begun.clean(path)


def _run(experiment: Experiment, folder: RunFolder, resumed: bool, console: Console) -> Path:
    recipe = experiment.recipe
    run_on_first_rank(functools.partial(begun.write, folder, experiment))
    folder.write_json("environment.json", collect_environment(recipe.seeds))
    if resumed and rank() == 0 and not (folder.path / "metrics.jsonl").exists():
        log.warning(
            "%s: metrics.jsonl is missing; the lines of finished arms are written again",
            folder.path,
        )
    done: dict[str, list[Arm]] = {name: [] for name in (*recipe.baselines, "distilled")}
    teacher: Arm | None = None
    status = "interrupted"
    try:
        with RunProgress(console, trainings(experiment).total, enabled=rank() == 0) as progress:
            shown = ArmProgress(progress)
            folder.on_log = shown.observe
            arms = Arms(experiment, folder, shown)
            teacher = arms.teacher()
            for seed in recipe.seeds:
                for name in arms.planned():
                    done[name].append(arms.student(name, seed))
                if rank() == 0:
                    result = results.assemble_result(experiment, teacher, done, "running")
                    folder.write_json("result.json", result)
        if rank() == 0:
            _finish(experiment, folder, done["distilled"])
        status = "complete"
    except Exception:
        status = "failed"
        raise
    finally:
        _conclude(
            folder, functools.partial(results.assemble_result, experiment, teacher, done), status
        )
    return folder.path


def _conclude(folder: RunFolder, assemble: Callable[[str], dict[str, Any]], status: str) -> None:
    """Write the result with its last status, which is complete only when the page is there too."""
    if rank() != 0:
        return
    if status == "complete":
        result = folder.read_json("result.json") or {}
        write_report(folder.path, status=status)
        folder.write_json("result.json", result | {"status": status})
    else:
        folder.write_json("result.json", assemble(status))


def _set_threads(folder: RunFolder) -> bool:
    """Take the number of threads of a run that was stopped: its sums must be added in the same order.

    Args:
        folder: of the run.

    Returns:
        Whether there is one.

    Raises:
        ValueError: if its ``environment.json`` is damaged.
    """
    remedy = "Delete it; the number of threads is chosen anew then, and sums may round differently"
    before = folder.read_json("environment.json", remedy)
    if before is None:
        return False
    hardware = before.get("hardware")
    count = hardware.get("threads") if isinstance(hardware, dict) else None
    if not isinstance(count, int) or count < 1:
        raise ValueError(
            f"{folder.path / 'environment.json'}: hardware.threads: expected a number above 0, got "
            f"{count}. {remedy}."
        )
    torch.set_num_threads(count)
    return True


def _tell_pairs(scheme: Scheme, console: Console) -> None:
    """Which student stage learns from which teacher stage, where an objective pairs them."""
    for name, objective in scheme.objectives.named():
        for line in getattr(objective, "plan", []):
            console.print(f"{name}: {line}", highlight=False, markup=False, soft_wrap=True)


def _finish(experiment: Experiment, folder: RunFolder, distilled: list[Arm]) -> None:
    """Ship the student and export it."""
    net = distilled[results.exported_seed_index(experiment, distilled)].net
    assert isinstance(net, Net)
    about = {
        "classes": list(experiment.splits.classes),
        "facts": experiment.facts,
        "shape": list(experiment.shape),
        "kind": experiment.splits.kind,
    }
    save_student(net, folder.path / "student.safetensors", about)
    if experiment.recipe.export:
        try:
            export_onnx(folder, experiment, net, int8=False)
        except (
            ImportError,
            ValueError,
            RuntimeError,
        ) as error:  # what was trained is not lost by it
            result = folder.read_json("result.json") or {}
            warning = f"the student could not be exported to ONNX: {error}"
            folder.write_json("result.json", result | {"warnings": [*result["warnings"], warning]})
    write_mistakes(experiment, folder)
