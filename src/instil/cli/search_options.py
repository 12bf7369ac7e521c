"""Options of the commands that search."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from instil.cli.commands import folder_path

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
RefinementsOption = Annotated[
    int | None,
    typer.Option(
        min=0,
        show_default=False,
        help="Largest number of students between the sizes of the candidates; 0: none. Default: 3.",
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
