"""Sums with verifiable answers: distillation against supervised training on the same problems.

python benchmarks/arithmetic.py [--arms answers step_by_step ...] [--seeds 5] [--work FOLDER]

A teacher of two layers learns sums of two-digit numbers, with rationales, from 2,048 problems. The
students learn from 128 problems. All arms have the same network, number of steps, batch size and
learning rate, which was not tuned for any of them. The score is the share of correct most likely
answers to 256 test problems. A stopped benchmark continues with the same ``--work`` folder. Writes
``arithmetic.json``.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from instil import recipe as recipes
from instil.files.json_files import write_json
from instil.plan.run import run
from instil.plan.statistics import paired_gain, summarize

RESULT = Path(__file__).with_name("arithmetic.json")
RATE = 5e-3
ROWS = 128
EPOCHS = 160
TEACHER = {"model": "causal_transformer", "options": {"width": 64, "depth": 2, "heads": 4}}
STUDENT = {"model": "causal_transformer", "options": {"width": 32, "depth": 2, "heads": 4}}
WRITES = {"temperature": 1.0}
SUPERVISED = ("answers", "rationales_and_answers")
"""Arms without a teacher."""
ARMS: dict[str, dict[str, Any]] = {
    "answers": {},
    "step_by_step": {"rationale": "task", "scheme": "step_by_step"},
    "verified_texts": {
        "scheme": {
            "type": "sequence_level",
            "verified": True,
            "candidates": 4,
            "sampling": WRITES,
        },
    },
    "rationales_and_answers": {"rationale": "answer"},
    "on_policy": {
        "rationale": "answer",
        "scheme": {"type": "on_policy", "share": 0.5},
        "objectives": {"cross_entropy": {}, "forward_kl": {}},
    },
}
"""Arm -> use of the rationales of the 128 problems, scheme and objectives."""


def data(rationale: str, rows: int) -> dict[str, Any]:
    """Return the data section of a recipe."""
    return {
        "name": "arithmetic",
        "digits": 2,
        "rows": rows,
        "rationale": rationale,
        "batch_size": 64,
    }


def train(content: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Run a recipe, unless the folder has its result, and return the result."""
    if not (folder / "result.json").exists():
        recipe = recipes.build(content | {"name": folder.name})
        run(recipe, folder, None, Console(quiet=True))
    result: dict[str, Any] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return result


def teacher_recipe() -> dict[str, Any]:
    """Return the recipe that trains the teacher as a student of its own."""
    return {
        "task": "language",
        "data": data("answer", 2048),
        "student": TEACHER,
        "objectives": {"cross_entropy": {}},
        "headline": "solved",
        "baselines": [],
        "seeds": [0],
        "train": {"epochs": 16, "optimizer": {"lr": 3e-3}},
    }


def arm_recipe(name: str, seeds: list[int], weights: Path) -> dict[str, Any]:
    """Return the recipe of an arm."""
    arm = ARMS[name]
    content = {
        "task": "language",
        "data": data(arm.get("rationale", "ignore"), ROWS),
        "student": STUDENT,
        "objectives": arm.get("objectives", {"cross_entropy": {}}),
        "headline": "solved",
        "baselines": [],
        "seeds": seeds,
        "train": {"epochs": EPOCHS, "evaluate_every": 1000, "optimizer": {"lr": RATE}},
    }
    if "scheme" in arm:
        content["scheme"] = arm["scheme"]
    if name not in (*SUPERVISED, "step_by_step"):
        content["teacher"] = TEACHER | {"weights": str(weights)}
    return content


def measure_arm(name: str, seeds: list[int], work: Path, weights: Path) -> dict[str, Any]:
    """Train an arm with all seeds, and return its test scores."""
    result = train(arm_recipe(name, seeds, weights), work / name)
    values = result["distilled"]["solved"]["values"]
    print(f"{name}: {[round(value, 3) for value in values]}", flush=True)
    return {"solved": summarize(values)}


def main() -> None:
    """Measure all arms, and write their scores and gains."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    work = options.work or Path(tempfile.mkdtemp())
    teacher = train(teacher_recipe(), work / "teacher")
    weights = work / "teacher" / "student.safetensors"
    seeds = list(range(options.seeds))
    arms = {name: measure_arm(name, seeds, work, weights) for name in options.arms}
    for name, arm in arms.items():
        if name in SUPERVISED:
            continue
        arm["gains"] = {
            reference: paired_gain(arm["solved"]["values"], arms[reference]["solved"]["values"])
            for reference in SUPERVISED
            if reference in arms
        }
    content = {
        "teacher": teacher["distilled"]["solved"]["mean"],
        "rows": ROWS,
        "steps": EPOCHS * ROWS // 64,
        "seeds": seeds,
        "references": SUPERVISED,
        "rate": RATE,
        "arms": arms,
        "environment": {"torch": torch.__version__, "machine": platform.machine(), "threads": 1},
    }
    write_json(RESULT, content)


if __name__ == "__main__":
    main()
