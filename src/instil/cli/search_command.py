"""Command that searches for the method and the options of a recipe."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from instil.cli.app import Arguments, app, load_recipe
from instil.cli.commands import INTERRUPTED
from instil.cli.output import console, echo

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
    str, typer.Option(metavar="SUBJECTS", help="What varies: methods, options or both.")
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
StrategyOption = Annotated[
    str, typer.Option(metavar="NAME", help="halving, random for comparison, or exhaustive.")
]
SamplerOption = Annotated[
    str, typer.Option(metavar="NAME", help="Sampler of options: tpe or random.")
]
OutOption = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Folder. Default: a new one in runs/.")
]
ResumeOption = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Folder of a stopped search to continue."),
]


@app.command()
def search(
    arguments: Arguments = None,
    over: OverOption = "methods",
    candidates: CandidatesOption = None,
    budget: BudgetOption = None,
    steps: StepsOption = None,
    runs: RunsOption = None,
    trials: TrialsOption = 4,
    seeds: SeedsOption = 3,
    strategy: StrategyOption = "halving",
    sampler: SamplerOption = "tpe",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the search.")] = 0,
    jobs: Annotated[int, typer.Option(min=1, help="Processes that train students.")] = 1,
    out: OutOption = None,
    resume: ResumeOption = None,
) -> None:
    """Search for the best method and options of a recipe, and write the recipe of the winner."""
    from instil.cli import run_folders, search_table

    if resume is not None and (arguments or out is not None):
        raise ValueError(
            "--resume: a stopped search has its own recipe and folder. Expected --resume DIR, and "
            "--jobs if you like. Remove the other arguments"
        )
    from instil.search import search as searches

    run_folders.stop_on_termination()
    folder = resume or out
    try:
        if resume is not None:
            outcome = searches.resume(resume, console(), jobs)
        else:
            settings = searches.Settings.from_options(
                over, candidates, steps, runs, budget, strategy, sampler, trials, seeds, seed
            )
            recipe = load_recipe(arguments)
            folder = out or run_folders.new(f"search-{recipe.name}")
            outcome = searches.start(recipe, settings, folder, console(), jobs)
        search_table.show(outcome, console())
        echo(f"Report: {folder}/search.html")
        echo(f"Repeat the winner with: instil run {folder}/best.yaml")
    except KeyboardInterrupt:
        has_begun = folder is not None and (folder / searches.STATE).exists()
        hint = f"Continue with: instil search --resume {folder}" if has_begun else ""
        echo(f"\nStopped. {hint or 'Nothing was trained.'}", err=True)
        sys.exit(INTERRUPTED)
