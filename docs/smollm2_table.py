"""Tables of ``benchmarks/smollm2.json``, and the markers that stand for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from formatting import replace_markers, table

FOLDER = Path(__file__).parents[1] / "benchmarks"
MARKER = "<!-- evidence of SmolLM2 -->"
CHOICES_MARKER = "<!-- choices of layers -->"
NUM_TEXTS = 2
ROW_LENGTH = 128
BATCH_SIZE = 8


def insert_table(text: str) -> str:
    """Replace the markers by the tables of students of SmolLM2."""
    return replace_markers(text, {MARKER: evidence, CHOICES_MARKER: choices})


def evidence() -> str:
    """Table of perplexities and speeds, a note on the setting, and generated texts."""
    measured = _read("smollm2")
    speeds = _read("gguf_speed")["models"]
    header = ("student", "trained with", "parameters", "perplexity", "relative to the teacher")
    header += ("relative to text alone", "speed in llama.cpp, relative to the teacher")
    rows = []
    for name, arm in measured["arms"].items():
        shape, _, method = name.partition("/")
        parameters = f"{arm['parameters']:,}" if "parameters" in arm else ""
        cells = [shape, _method(method), parameters, _interval(arm, "perplexity", "interval")]
        cells += [_interval(arm, key, f"{key}_interval") for key in ("to_teacher", "to_alone")]
        rows.append([*cells, _speed(speeds.get(name))])
    return "\n".join([*table(header, rows), _note(measured), "", *_texts(measured["arms"])])


def choices() -> str:
    """Table of the perplexities by choice of the layers."""
    measured = _read("layer_choice")
    header = ("layers that stay", "perplexity", "relative to the teacher")
    rows = []
    for name, arm in measured["arms"].items():
        choice = name.partition("/")[0].replace("depth", "block")
        cells = [f"`{choice}`" if name != "teacher" else "all (the teacher)"]
        cells += [_interval(arm, "perplexity", "interval")]
        rows.append([*cells, _interval(arm, "to_teacher", "to_teacher_interval")])
    note = (
        f"Fifteen of thirty layers of SmolLM2, {measured['steps']} steps with `forward_kl`, "
        f"{_tokens(measured)}, one seed; 95 % bootstrap intervals over the rows of the test split."
    )
    return "\n".join([*table(header, rows), note])


def _read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return content


def _method(name: str) -> str:
    return {"": "", "alone": "text alone"}.get(name, f"`{name}`")


def _interval(arm: dict[str, Any], key: str, interval: str) -> str:
    if key not in arm:
        return ""
    low, high = arm[interval]
    return f"{arm[key]:.3g} ({low:.3g} to {high:.3g})"


def _speed(entry: dict[str, Any] | None) -> str:
    if entry is None:
        return ""
    median, low, high = entry["to_teacher"]
    return f"{median:.2f} ({low:.2f} to {high:.2f})"


def _tokens(measured: dict[str, Any]) -> str:
    return f"{measured['steps'] * BATCH_SIZE * ROW_LENGTH:,} tokens"


def _note(measured: dict[str, Any]) -> str:
    return (
        f"Perplexity of {measured['held_out']} test rows of {ROW_LENGTH} tokens, with 95 % "
        "bootstrap intervals over the rows, which describe the texts and not the seeds. Every "
        f"student was trained with {measured['steps']} steps, {_tokens(measured)}, and one seed. "
        "`python benchmarks/smollm2.py` and `python benchmarks/gguf_speed.py` compute the table.\n"
    )


def _texts(arms: dict[str, Any]) -> list[str]:
    """Prompts with their continuations by each student."""
    students = {name: arm for name, arm in arms.items() if "continuations" in arm}
    first = next(iter(students.values()))["continuations"][:NUM_TEXTS]
    lines = []
    for index, row in enumerate(first):
        written = {name: arm["continuations"][index]["generated"] for name, arm in students.items()}
        texts = {"prompt": row["prompt"], "original": row["text"], **written}
        blocks = [f"--- {title}\n{text}" for title, text in texts.items()]
        # Texts may contain three backticks.
        lines += ["````text", *blocks, "````", ""]
    return lines
