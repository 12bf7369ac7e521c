"""Command that searches for the method and the options of a recipe."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from instil.cli.app import Arguments, app, load_recipe
from instil.cli.commands import INTERRUPTED, folder_path
from instil.cli.output import console, echo

if TYPE_CHECKING:
    from instil.recipe import Recipe
    from instil.search.state import Settings

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _seconds(text: str) -> float:
    """Parse a duration such as ``90s``, ``30m`` or ``2h``."""
    amount, unit = text[:-1], text[-1:]
    try:
        seconds = float(amount) * UNITS[unit]
    except (ValueError, KeyError):
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise typer.BadParameter(f"expected a time such as 90s, 30m, 2h or 1d, got '{text}'")
    return seconds


OverOption = Annotated[
    str | None,
    typer.Option(
        metavar="SUBJECTS",
        show_default=False,
        help="What varies: methods, options, students, teachers; with commas. Default: "
        "search.over of the recipe, or methods.",
    ),
]
CandidatesOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES",
        show_default=False,
        help="Objectives and schemes, separated by commas. Default: all that fit.",
    ),
]
BudgetOption = Annotated[
    float | None,
    typer.Option(
        metavar="TIME", parser=_seconds, help="Time of all trainings, such as 90s, 30m or 2h."
    ),
]
StepsOption = Annotated[
    int | None, typer.Option(min=1, help="Optimizer steps of all trainings of the student.")
]
RunsOption = Annotated[
    int | None,
    typer.Option(min=1, help="Budget in trainings of the length that the recipe has."),
]
TrialsOption = Annotated[
    int, typer.Option(min=1, help="Trials of each arm per round, for --over options.")
]
SeedsOption = Annotated[
    int, typer.Option(min=1, help="New seeds of the finalists; use 5 for a claim.")
]
FoldsOption = Annotated[
    int,
    typer.Option(min=1, help="Folds of the labelled training samples for each trial, with few."),
]
StrategyOption = Annotated[
    str,
    typer.Option(
        metavar="NAME", help="auto, halving, seeds, random for comparison, or exhaustive."
    ),
]
SamplerOption = Annotated[
    str, typer.Option(metavar="NAME", help="Sampler of options: tpe or random.")
]
StudentsOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES",
        show_default=False,
        help="Students: networks, teacher, timm, or models such as timm:resnet18.",
    ),
]
LimitOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE",
        show_default=False,
        help="Limit of a student: latency=5ms, size=4MB, memory=8MB or parameters=50k; repeatable.",
    ),
]
KeepOption = Annotated[
    str | None,
    typer.Option(
        metavar="SHARE",
        show_default=False,
        help="Share of the teacher's quality that the student keeps. Default: 99%.",
    ),
]
JobsOption = Annotated[int, typer.Option(min=1, help="Processes that train students.")]
PriorOption = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Order of the methods: auto, none, model, or the file of a model.",
    ),
]
MaxCostOption = Annotated[
    float,
    typer.Option(
        "--max-cost",
        min=1.0,
        help="Largest time of a step of a method, in steps of the recipe's own method.",
    ),
]
TeachersOption = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|CHANGES",
        show_default=False,
        help="Teachers: a YAML file, or changes such as options.width=8,num_replicas=3.",
    ),
]
OutOption = Annotated[
    Path | None,
    typer.Option(metavar="DIR", parser=folder_path, help="Folder. Default: a new one in runs/."),
]
ResumeOption = Annotated[
    Path | None,
    typer.Option(metavar="DIR", parser=folder_path, help="Folder of a stopped search to continue."),
]


@app.command()
def search(
    context: typer.Context,
    arguments: Arguments = None,
    over: OverOption = None,
    candidates: CandidatesOption = None,
    students: StudentsOption = None,
    limit: LimitOption = None,
    keep: KeepOption = None,
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
    settings = settings_from(
        None if recipe is None else recipe.search,
        over,
        candidates,
        students,
        limit or (),
        keep,
        teachers,
        **budgets,
        strategy=strategy,
        sampler=sampler,
        **trainings,
        prior=prior,
        max_cost=max_cost,
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
