"""Command that searches for the method and the options of a recipe."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from instil.cli.app import Arguments, app, load_recipe
from instil.cli.commands import INTERRUPTED
from instil.cli.output import console, echo
from instil.cli.search_options import (
    BudgetOption,
    CandidatesOption,
    FoldsOption,
    JobsOption,
    KeepOption,
    LimitOption,
    MaxCostOption,
    OutOption,
    OverOption,
    PriorOption,
    RefinementsOption,
    ResumeOption,
    RunsOption,
    SamplerOption,
    SeedsOption,
    StepsOption,
    StrategyOption,
    StudentsOption,
    TeachersOption,
    TrialsOption,
)

if TYPE_CHECKING:
    from instil.recipe import Recipe
    from instil.search.state import Settings


@app.command()
def search(
    context: typer.Context,
    arguments: Arguments = None,
    over: OverOption = None,
    candidates: CandidatesOption = None,
    students: StudentsOption = None,
    limit: LimitOption = None,
    keep: KeepOption = None,
    refinements: RefinementsOption = None,
    budget: BudgetOption = None,
    steps: StepsOption = None,
    runs: RunsOption = None,
    trials: TrialsOption = 4,
    seeds: SeedsOption = 3,
    folds: FoldsOption = 1,
    strategy: StrategyOption = "auto",
    sampler: SamplerOption = "tpe",
    prior: PriorOption = "auto",
    max_cost: MaxCostOption = 20.0,
    teachers: TeachersOption = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the search.")] = 0,
    jobs: JobsOption = 1,
    out: OutOption = None,
    resume: ResumeOption = None,
) -> None:
    """Search for method, options, student or teacher, and write the recipe of the winner."""
    recipe = _recipe(resume, arguments, context)
    from instil.search.options import settings_from

    budgets = {"max_steps": steps, "max_runs": runs, "max_seconds": budget}
    trainings = {"num_trials": trials, "num_seeds": seeds, "num_folds": folds, "seed": seed}
    choices = {"strategy": strategy, "sampler": sampler, "prior": prior, "max_cost": max_cost}
    settings = settings_from(
        None if recipe is None else recipe.search,
        over,
        candidates,
        students,
        limit or (),
        keep,
        teachers,
        refinements,
        **budgets,
        **trainings,
        **choices,
    )
    run_search(recipe, settings, out, resume, jobs)


def _recipe(resume: Path | None, arguments: Arguments, context: typer.Context) -> Recipe | None:
    """Return the recipe of a new search; None to continue one, which has its own settings."""
    if resume is None:
        return load_recipe(arguments)
    others = list(arguments or [])
    for name in sorted(set(context.params) - {"arguments", "resume", "jobs"}):
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            others.append(f"--{name.replace('_', '-')}")
    if others:
        raise ValueError(
            "--resume: a stopped search has its own recipe, settings and folder. Expected "
            f"--resume DIR, and --jobs if you like, got {', '.join(others)}, too. Remove them"
        )
    return None


def run_search(
    recipe: Recipe | None, settings: Settings, out: Path | None, resume: Path | None, jobs: int
) -> None:
    """Start or continue a search, and print its result.

    Args:
        recipe: the recipe; None to continue.
        settings: settings of a new search.
        out: folder of a new search. None: one in ``runs/``.
        resume: folder of a search to continue; None for a new one.
        jobs: number of processes.
    """
    from instil.cli import run_folders, search_students_table, search_table
    from instil.search import search as searches

    run_folders.stop_on_termination()
    folder = resume or out
    try:
        if resume is not None:
            outcome = searches.resume(resume, console(), jobs)
        else:
            assert recipe is not None
            folder = out or run_folders.new(f"search-{recipe.name}")
            outcome = searches.start(recipe, settings, folder, console(), jobs)
        is_over_students = "frontiers" in outcome
        show = search_students_table.show_students if is_over_students else search_table.show
        show(outcome, console())
        echo(f"Report: {folder}/search.html")
        echo(f"Repeat the winner with: instil run {folder}/best.yaml")
    except KeyboardInterrupt:
        has_begun = folder is not None and (folder / searches.STATE).exists()
        hint = f"Continue with: instil search --resume {folder}"
        if not has_begun:
            hint = (
                "No trial was trained. Start the search again; a trained teacher is read from the "
                "cache."
            )
        echo(f"\nStopped. {hint}", err=True)
        sys.exit(INTERRUPTED)
