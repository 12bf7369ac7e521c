"""Command that searches for a smaller student of a model."""

from __future__ import annotations

from typing import Annotated

import typer

from instil.cli.app import app
from instil.cli.search_command import run_search
from instil.cli.search_options import (
    BudgetOption,
    JobsOption,
    KeepOption,
    LimitOption,
    OutOption,
    RefinementsOption,
    RunsOption,
    SeedsOption,
    StepsOption,
    StudentsOption,
)

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        show_default=False,
        help="Model such as timm:resnet18, run folder, or recipe whose teacher is compressed.",
    ),
]
Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="DATA KEY=VALUE",
        show_default=False,
        help="Data source (default: that of the run or recipe), then changes of the recipe.",
    ),
]


@app.command()
def compress(
    model: Model,
    words: Words = None,
    keep: KeepOption = None,
    limit: LimitOption = None,
    students: StudentsOption = None,
    refinements: RefinementsOption = None,
    budget: BudgetOption = None,
    steps: StepsOption = None,
    runs: RunsOption = None,
    seeds: SeedsOption = 3,
    jobs: JobsOption = 1,
    out: OutOption = None,
) -> None:
    """Search for the smallest student that keeps a share of a model's quality."""
    changes = [word for word in words or [] if "=" in word]
    sources = [word for word in words or [] if "=" not in word]
    if len(sources) > 1:
        raise ValueError(
            f"DATA: several data sources. Expected one, got {' and '.join(sources)}. Write a "
            "change as key=value, without spaces"
        )
    from instil.search.compression import compression_recipe
    from instil.search.options import settings_from

    recipe = compression_recipe(model, sources[0] if sources else None, changes)
    settings = settings_from(
        recipe.search,
        "students",
        students=students,
        limits=limit or (),
        keep=keep,
        refinements=refinements,
        max_steps=steps,
        max_runs=runs,
        max_seconds=budget,
        num_seeds=seeds,
    )
    run_search(recipe, settings, out, None, jobs)
