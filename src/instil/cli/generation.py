"""Generation of completions on a server, with a progress bar."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from instil.recipe.yaml_text import parse
from instil.remote import Server
from instil.remote.generation import generate_file, read_prompts


def generate(
    prompts: Path,
    out: Path,
    url: str,
    name: str | None,
    server: Mapping[str, Any],
    request: Mapping[str, Any],
    options: Sequence[str],
    console: Console,
) -> None:
    """Generate the completions of prompts.

    Args:
        prompts: JSONL file with a prompt per line.
        out: JSONL file to write.
        url: address of the server.
        name: name of the model. None: the only one.
        server: options of ``Server``.
        request: options of each request.
        options: further keys of each request, as ``KEY=VALUE``.
        console: terminal with the progress bar.

    Raises:
        ValueError: for wrong prompts or options; the server is not contacted.
    """
    read_prompts(prompts)  # errors in the prompts are reported before the server is contacted
    malformed = [option for option in options if "=" not in option]
    if malformed:
        raise ValueError(
            f"--set: malformed option. Expected KEY=VALUE, such as --set top_p=0.9, got "
            f"{malformed[0]}"
        )
    pairs = (option.partition("=") for option in options)
    keys = {key: _json_value(value, f"--set {key}") for key, _, value in pairs}
    if keys.get("n") not in (None, 1):
        raise ValueError(
            f"--set n: one completion per request is kept. Expected 1, got {keys['n']}. "
            "Call generate once for each --seed"
        )
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("generating", total=None)
        generate_file(
            prompts,
            out,
            Server(url, name, **server),
            lambda done, total: progress.update(task, completed=done, total=total),
            **request,
            options=keys,
        )


def _json_value(text: str, where: str) -> Any:
    """Parse a YAML value that JSON can hold."""
    value = parse(text, where)
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}. Expected a value that JSON has") from error
    return value
