"""The command that has prompts answered by a server."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from instil.recipe.yaml_text import parse
from instil.remote import Server
from instil.remote.generation import generate as answer
from instil.remote.generation import read_prompts


def generate(
    prompts: Path,
    out: Path,
    url: str,
    name: str | None,
    server: Mapping[str, Any],
    asked: Mapping[str, Any],
    options: Sequence[str],
    shown: Console,
) -> None:
    """Write the answers to ``prompts`` into ``out``; ``options`` are KEY=VALUE of the request."""
    read_prompts(prompts)  # what is wrong with them is said before a server is looked for
    if wrong := [one for one in options if "=" not in one]:
        raise ValueError(
            f"--set {wrong[0]}: a key of the request and its value, such as --set top_p=0.9"
        )
    pairs = (one.partition("=") for one in options)
    further = {key: _json_value(value, f"--set {key}") for key, _, value in pairs}
    if further.get("n") not in (None, 1):
        raise ValueError(
            f"--set n: one answer of each request is kept. Expected 1, got {further['n']}. "
            "Call generate once for each --seed"
        )
    with Progress(console=shown, transient=True) as progress:
        task = progress.add_task("asking", total=None)
        answer(
            prompts,
            out,
            Server(url, name, **server),
            lambda done, of: progress.update(task, completed=done, total=of),
            **asked,
            options=further,
        )


def _json_value(text: str, where: str) -> Any:
    value = parse(text, where)
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}. Expected a value that JSON has") from error
    return value
