"""Commands on recipes, runs and the catalogue."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from instil.cli.app import Arguments, AsJson, RunFolder, app, load_recipe
from instil.cli.output import console, echo, print_json

INTERRUPTED = 130
"""Exit code after Ctrl-C."""


def folder_path(text: str) -> Path:
    """Parse a folder.

    Raises:
        typer.BadParameter: for an empty text, which would be the current folder.
    """
    if not text.strip():
        raise typer.BadParameter("expected a folder, got an empty text")
    return Path(text)


Cluster = Annotated[
    str | None,
    typer.Option(
        metavar="CLUSTER",
        show_default=False,
        help="Train on a Ray cluster: its address, or ray for one on this machine.",
    ),
]


@app.command()
def run(
    arguments: Arguments = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", parser=folder_path, help="Run folder. Default: a new one in runs/."
        ),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", parser=folder_path, help="Folder of a stopped run to continue."
        ),
    ] = None,
    jobs: Annotated[
        int, typer.Option(min=1, help="Processes that train teachers and students.")
    ] = 1,
    on: Cluster = None,
    fresh: Annotated[
        bool,
        typer.Option("--fresh", help="Train students again that another run has trained."),
    ] = False,
) -> None:
    """Train teacher, baselines and distilled student, and write a run folder."""
    from instil.cli import run_folders

    run_folders.check_one(out, resume)
    default = "digits" if resume is None else str(run_folders.existing(resume))
    recipe = load_recipe(arguments, default=default)
    from instil.plan.executors.selection import select_executor
    from instil.plan.run import run as run_recipe

    executor = select_executor(jobs, on)
    folder = resume or out or run_folders.new(recipe.name)
    run_folders.stop_on_termination()
    try:
        run_recipe(recipe, None if resume else folder, resume, console(), executor, fresh)
        _show_result(folder)
    except KeyboardInterrupt:
        has_begun = (folder / "recipe.yaml").exists()
        hint = (
            f"Continue with: instil run --resume {folder}" if has_begun else "Nothing was written."
        )
        echo(f"\nStopped. {hint}", err=True)
        sys.exit(INTERRUPTED)


@app.command()
def record(
    arguments: Arguments = None,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="FILE",
            help="Predictions of another program (.npz or .parquet), in place of the teacher.",
        ),
    ] = None,
) -> None:
    """Record the teacher's outputs for all samples at store.path, or continue a recording."""
    recipe = load_recipe(arguments)
    from instil.engine import rank
    from instil.plan.recording import record_outputs, with_predictions
    from instil.report.quantities import plain, size

    folder = record_outputs(recipe, console(), source)
    if rank() > 0:
        return
    teacher = ""
    if source is not None:
        teacher = f" teacher={with_predictions(recipe, source).teachers[0].model}"
    num_bytes = sum(file.stat().st_size for file in folder.iterdir())
    echo(
        f"The teacher's outputs are in {folder} ({plain(size(num_bytes))}). Learn from them with "
        f"the same recipe: instil run ... store.path={folder}{teacher}"
    )


@app.command()
def doctor(
    arguments: Arguments = None,
    ranks: Annotated[
        int | None,
        typer.Option(
            min=1,
            show_default=False,
            help="Only forecast the memory of each process of this number, from the "
            "configurations of the models, without their weights.",
        ),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            show_default=False,
            help="Memory of a device, such as 80GB: propose a layout that fits. Needs --ranks.",
        ),
    ] = None,
    json: AsJson = False,
) -> None:
    """Check a recipe on one batch without training: data, taps, losses, memory and time.

    The exit code is 1 if there are problems.
    """
    if memory is not None and ranks is None:
        raise typer.BadParameter("--memory needs --ranks, the number of processes")
    recipe = load_recipe(arguments)
    from instil.cli import doctor_page, memory_page

    if ranks is None:
        findings = doctor_page.findings_of(recipe)
    else:
        findings = memory_page.forecast_of(recipe, ranks, memory)
    page = doctor_page if ranks is None else memory_page
    if json:
        print_json(findings)
    else:
        page.show(findings, console())
    raise typer.Exit(1 if findings.get("problems") else 0)


@app.command()
def plan(
    arguments: Arguments = None,
    run: Annotated[
        Path | None,
        typer.Option(metavar="DIR", parser=folder_path, help="Run folder whose students are done."),
    ] = None,
    json: AsJson = False,
) -> None:
    """List the jobs of a recipe: what is cached, and the time and memory of the rest."""
    recipe = load_recipe(arguments)
    from instil.cli import plan_page

    jobs = plan_page.plan_of(recipe, run)
    if json:
        print_json(jobs)
    else:
        plan_page.show(jobs, console())


@app.command()
def export(
    run: RunFolder,
    int8: Annotated[
        bool,
        typer.Option("--int8/--no-int8", help="Also export a quantised model, with its metrics."),
    ] = True,
    gguf: Annotated[
        str | None,
        typer.Option(
            metavar="TYPE",
            help="Also export a language model for llama.cpp, with weights of type f32, f16, q8_0 "
            "or q4_0.",
        ),
    ] = None,
    trust_code: Annotated[
        bool,
        typer.Option(
            "--trust-code", help="Execute the Python modules that the run's recipe names."
        ),
    ] = False,
) -> None:
    """Export the student of a run, check the files against PyTorch and time them."""
    from instil.cli import run_folders, summary_table

    folder = run_folders.existing(run)
    from instil.deployment.export import export as export_run

    export_run(folder, int8, gguf, trust_code=trust_code)
    summary_table.show_export(_result(folder), console())


@app.command()
def report(
    run: RunFolder,
    interactive: Annotated[
        bool,
        typer.Option("--interactive", help="Use interactive plots, which add 5 MB to the page."),
    ] = False,
) -> None:
    """Write the report of a run again, for example with interactive plots."""
    from instil.cli import run_folders

    folder = run_folders.existing(run)
    from instil.report.page import write_report

    echo(str(write_report(folder, interactive)))


def _show_result(folder: Path) -> None:
    """Show the summary table, on the first rank only."""
    from rich.markup import escape

    from instil.cli import summary_table
    from instil.cli.result_lines import convergence_line
    from instil.engine import rank

    if rank() == 0:
        summary_table.show(_result(folder), console())
        if sentence := convergence_line(folder):
            console().print("[yellow]Warning:[/yellow]", escape(sentence), highlight=False)
        line = f"Report: {folder / 'report.html'}"
        console().print(line, soft_wrap=True, highlight=False, markup=False)


def _result(folder: Path) -> Any:
    import json

    return json.loads((folder / "result.json").read_text(encoding="utf-8"))
