"""The command that generates completions with a teacher on a server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from instil.cli.app import app
from instil.cli.output import console, echo

Prompts = Annotated[
    Path,
    typer.Argument(
        metavar="PROMPTS", show_default=False, help="JSONL file; each line has a prompt."
    ),
]
Url = Annotated[
    str, typer.Option(show_default=False, help="Server, such as http://127.0.0.1:8080/v1.")
]
OutFile = Annotated[
    Path,
    typer.Option(
        metavar="FILE",
        show_default=False,
        help="JSONL file to write: the lines with their completions.",
    ),
]
ModelName = Annotated[
    str | None, typer.Option(show_default=False, help="Name of the model. Default: the only one.")
]
Temperature = Annotated[
    float, typer.Option(min=0.0, help="Sampling temperature; 0 is greedy decoding.")
]
Plain = Annotated[
    bool, typer.Option("--plain", help="Send the prompt as plain text instead of a chat message.")
]
System = Annotated[str | None, typer.Option(show_default=False, help="System prompt.")]
RequestOptions = Annotated[
    Optional[list[str]],  # noqa: UP045 - typer reads it on Python 3.10
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        show_default=False,
        help="Further key of the request; null removes a key.",
    ),
]
KeyVariable = Annotated[
    str, typer.Option(metavar="VARIABLE", help="Environment variable with the API key.")
]
Log = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", show_default=False, help="Log of the responses. Default: FILE.log."
    ),
]
RequestBudget = Annotated[
    int | None, typer.Option(show_default=False, help="Largest number of requests.")
]
TokenBudget = Annotated[
    int | None, typer.Option(show_default=False, help="Largest number of tokens.")
]


@app.command()
def generate(
    prompts: Prompts,
    url: Url,
    out: OutFile,
    name: ModelName = None,
    length: Annotated[int, typer.Option(min=1, help="Largest number of new tokens.")] = 256,
    temperature: Temperature = 1.0,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    plain: Plain = False,
    system: System = None,
    options: RequestOptions = None,
    key: KeyVariable = "INSTIL_REMOTE_KEY",
    log: Log = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Concurrent requests.")] = 8,
    request_budget: RequestBudget = None,
    token_budget: TokenBudget = None,
    retries: Annotated[int, typer.Option(min=0, help="Further attempts after a failure.")] = 6,
    timeout: Annotated[float, typer.Option(help="Seconds for one response.")] = 120.0,
) -> None:
    """Generate completions of prompts with a teacher on an OpenAI-compatible server.

    A student can learn from them. A stopped generation is continued.
    """
    from instil.cli import generation

    server = {
        "key": key,
        "log": log or out.with_name(f"{out.name}.log"),
        "concurrency": concurrency,
        "retries": retries,
        "timeout": timeout,
        "request_budget": request_budget,
        "token_budget": token_budget,
    }
    request = {
        "length": length,
        "temperature": temperature,
        "seed": seed,
        "plain": plain,
        "system": system,
    }
    generation.generate(prompts, out, url, name, server, request, options or [], console())
    echo(
        f"The completions are in {out}. Learn from them with a recipe of the task language: "
        f"instil run ... data.name=text data.path={out}"
    )
