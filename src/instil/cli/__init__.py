"""The command line: run, record, generate, methods, recipes, init, doctor, export, report."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

if TYPE_CHECKING:
    from instil.recipe import Recipe

INTERRUPTED = 130

app = typer.Typer(
    name="instil",
    help="Knowledge distillation: a teacher, a student and data in; the distilled student and the evidence out.",
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # the plain help is there in a third of the time
    context_settings={"help_option_names": ["-h", "--help"]},
)

Arguments = Annotated[
    Optional[list[str]],  # noqa: UP045 - typer reads it on 3.10
    typer.Argument(
        metavar="RECIPE KEY=VALUE",
        show_default=False,
        help="A YAML file or a shipped recipe (default: digits; all: instil recipes); then changes: train.epochs=5",
    ),
]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else.")]


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        _echo(f"instil {version('instil')}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error; may stand anywhere.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Knowledge distillation: a teacher, a student and data in; the distilled student and the evidence out."""
    if context.invoked_subcommand is None:
        _echo(context.get_help())


def _folder(text: str) -> Path:
    """A folder that is given on the command line; an empty text would be the current folder."""
    if not text.strip():
        raise typer.BadParameter("expected a folder, got an empty text")
    return Path(text)


@app.command()
def run(
    arguments: Arguments = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", parser=_folder, help="The run folder; by default a new one in runs/."
        ),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(metavar="DIR", parser=_folder, help="A stopped run's folder, to go on with."),
    ] = None,
) -> None:
    """Train teacher, student alone and distilled student, and write a run folder (default: the recipe digits)."""
    from instil.cli import run_folders

    run_folders.check_one(out, resume)
    default = "digits" if resume is None else str(run_folders.existing(resume))
    recipe = _recipe(arguments, default=default)
    from instil.experiment.run import run as run_recipe

    folder = resume or out or run_folders.new(recipe.name)
    run_folders.stop_on_termination()
    try:
        run_recipe(recipe, None if resume else folder, resume, _console())
        _show_result(folder)
    except KeyboardInterrupt:
        begun = (folder / "recipe.yaml").exists()
        hint = f"Go on with: instil run --resume {folder}" if begun else "Nothing was written."
        _echo(f"\nStopped. {hint}", err=True)
        sys.exit(INTERRUPTED)


@app.command()
def record(arguments: Arguments = None) -> None:
    """Ask a recipe's teacher once about every sample, and keep its answers where store.path says; goes on where it was stopped."""
    recipe = _recipe(arguments)
    from instil.experiment.recording import record as record_answers

    folder = record_answers(recipe, _console())
    size = sum(file.stat().st_size for file in folder.iterdir())
    _echo(
        f"The answers are in {folder} ({size / 1e6:.1f} MB). Learn from them with the same recipe: instil run ... store.path={folder}"
    )


@app.command()
def generate(
    prompts: Annotated[
        Path,
        typer.Argument(
            metavar="PROMPTS", show_default=False, help="A .jsonl file; each line has a prompt."
        ),
    ],
    url: Annotated[
        str, typer.Option(show_default=False, help="The server, such as http://127.0.0.1:8080/v1.")
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            show_default=False,
            help="The .jsonl file to write: the lines with their completion.",
        ),
    ],
    name: Annotated[
        str | None,
        typer.Option(show_default=False, help="The model; by default the only one there."),
    ] = None,
    length: Annotated[int, typer.Option(min=1, help="Tokens of an answer, at most.")] = 256,
    temperature: Annotated[
        float, typer.Option(min=0.0, help="0 takes the likeliest token; else tokens are drawn.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="What is drawn.")] = 0,
    plain: Annotated[
        bool,
        typer.Option(
            "--plain", help="Continue the prompt as a text; by default it is said in a chat."
        ),
    ] = False,
    system: Annotated[
        str | None, typer.Option(show_default=False, help="What the chat begins with.")
    ] = None,
    options: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            show_default=False,
            help="A further key of the request; null leaves one out.",
        ),
    ] = None,
    key: Annotated[
        str,
        typer.Option(metavar="VARIABLE", help="The environment variable with the server's key."),
    ] = "INSTIL_REMOTE_KEY",
    log: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", show_default=False, help="Where answers are kept; by default FILE.log."
        ),
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests at a time.")] = 8,
    request_budget: Annotated[
        int | None, typer.Option(show_default=False, help="Requests in all, at most.")
    ] = None,
    token_budget: Annotated[
        int | None, typer.Option(show_default=False, help="Tokens in all, at most.")
    ] = None,
    retries: Annotated[int, typer.Option(min=0, help="Further attempts where one fails.")] = 6,
    timeout: Annotated[float, typer.Option(help="Seconds for one answer.")] = 120.0,
) -> None:
    """Let a teacher behind an OpenAI-compatible server answer prompts, for a student to learn from; goes on where it was stopped."""
    from instil.cli import generation

    server = {
        "key": key,
        "log": log or out.with_name(f"{out.name}.log"),
        "concurrency": concurrency,
        "retries": retries,
        "timeout": timeout,
    }
    server |= {"request_budget": request_budget, "token_budget": token_budget}
    asked = {
        "length": length,
        "temperature": temperature,
        "seed": seed,
        "plain": plain,
        "system": system,
    }
    generation.generate(prompts, out, url, name, server, asked, options or [], _console())
    _echo(
        f"The answers are in {out}. Learn from them with a recipe of the task language: instil run ... data.name=text data.path={out}"
    )


@app.command()
def methods(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", show_default=False, help="One method: its card."),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(help="objective, scheme, teacher, task or data.", show_default=False),
    ] = None,
    json: AsJson = False,
) -> None:
    """The catalogue of methods, or one method's card; of data sources too (--kind data)."""
    from instil.cli import methods_table, sources_table

    of_data = kind == "data" or (kind is None and name and sources_table.is_source(name))
    found = sources_table.select_sources(name) if of_data else methods_table.select(name, kind)
    if json:
        _print_json(found)
    elif of_data:
        sources_table.show_sources(found, _console())
    elif name is None:
        methods_table.show_all(found, _console())
    else:
        for method in found:
            methods_table.show_one(method, _console())


@app.command()
def recipes(json: AsJson = False) -> None:
    """List the recipes that the package ships; each runs by its name: instil run kd."""
    from instil.cli import recipe_list

    if json:
        _print_json(recipe_list.entries())
    else:
        recipe_list.show(_console())


@app.command()
def init(
    recipe: Annotated[
        str, typer.Argument(metavar="[RECIPE]", help="A shipped recipe to begin with.")
    ] = "kd",
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", show_default=False, help="The file to write; by default RECIPE.yaml."
        ),
    ] = None,
) -> None:
    """Copy a shipped recipe into a file of your own, to be edited."""
    from instil.cli import recipe_list

    path = recipe_list.copy(recipe, out)
    _echo(f"{path} is yours to edit. Check it with: instil doctor {path}")


@app.command()
def doctor(arguments: Arguments = None, json: AsJson = False) -> None:
    """Try a recipe on one batch, training nothing: data, taps, losses, memory and time; exit code 1 for problems."""
    recipe = _recipe(arguments)
    from instil.cli import doctor_page

    findings = doctor_page.findings_of(recipe)
    if json:
        _print_json(findings)
    else:
        doctor_page.show(findings, _console())
    raise typer.Exit(1 if findings.get("problems") else 0)


@app.command()
def export(
    run: Run,
    int8: Annotated[
        bool,
        typer.Option(
            "--int8/--no-int8", help="Also a quantised model, with the accuracy it costs."
        ),
    ] = True,
    gguf: Annotated[
        str | None,
        typer.Option(
            metavar="TYPE",
            help="Also a file for llama.cpp of a language model's student, with weights f32, f16, q8_0 or q4_0.",
        ),
    ] = None,
    trust_code: Annotated[
        bool,
        typer.Option(
            "--trust-code", help="Execute the Python modules that the run's recipe names."
        ),
    ] = False,
) -> None:
    """Write the student of a run as safetensors, ONNX and int8, checked against each other, and timed beside the teacher."""
    from instil.cli import closing_table, run_folders

    folder = run_folders.existing(run)
    from instil.deployment.export import export as export_run

    export_run(folder, int8, gguf, trust_code=trust_code)
    closing_table.show_export(_result(folder), _console())


@app.command()
def report(
    run: Run,
    interactive: Annotated[
        bool,
        typer.Option("--interactive", help="Plots that answer to the mouse; the page has 5 MB."),
    ] = False,
) -> None:
    """Rebuild the page of a run."""
    from instil.cli import run_folders

    folder = run_folders.existing(run)
    from instil.report.page import write_report

    _echo(str(write_report(folder, interactive)))


def _recipe(arguments: list[str] | None, default: str = "digits") -> Recipe:
    """The recipe that the arguments name, with their changes."""
    changes = [one for one in arguments or [] if "=" in one and not Path(one).exists()]
    named = [one for one in arguments or [] if one not in changes]
    if len(named) > 1:
        raise ValueError(
            f"one recipe at a time, not {' and '.join(named)}; a change is written key=value, without blanks"
        )
    from instil.recipe import load

    return load(named[0] if named else default, changes)


def _show_result(folder: Path) -> None:
    """The closing table; of several ranks only the first shows it."""
    from instil.cli import closing_table
    from instil.engine import rank

    if rank() == 0:
        closing_table.show(_result(folder), _console())
        _console().print(
            f"The page to read: {folder / 'report.html'}", soft_wrap=True, highlight=False
        )


def _result(folder: Path) -> Any:
    import json

    return json.loads((folder / "result.json").read_text(encoding="utf-8"))


def _console() -> Any:
    from rich.console import Console

    return Console()


def _echo(text: str, err: bool = False) -> None:
    """Print text in which names of files and messages of servers cannot steer the terminal."""
    from instil.files.printable import printable

    typer.echo(printable(text), err=err)


def _print_json(value: Any) -> None:
    import json

    _echo(json.dumps(value, indent=2, default=str))


def main(arguments: list[str] | None = None) -> None:
    """The entry point: runs a command; an error is a message on stderr and the exit code 2 (bad input) or 1 (a failed run)."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    debug = "--debug" in words
    from instil.cli.errors import exit_code, message_of

    try:
        code = app(
            args=[word for word in words if word != "--debug"],
            prog_name="instil",
            standalone_mode=False,
        )
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except Exception as error:
        code = exit_code(error)
        if debug:
            raise
        if message := message_of(error):
            _echo(message, err=True)
    if code == INTERRUPTED:  # typer returns it, too, where a command did not handle Ctrl-C
        _echo("\nStopped.", err=True)
    sys.exit(code if isinstance(code, int) else 0)
