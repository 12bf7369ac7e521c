"""Compressed copies of a CNN, trained with and without distillation, on 14 x 14 digits.

python benchmarks/compression.py SOURCES [--work FOLDER]

SOURCES has ``mnist10k.npz``. The teacher is trained on 2,000 images with all labels. The student is
a pruned, sparse or quantised copy of it and sees the same images, 200 of them with a label. All
arms have the same number of steps and the same learning rate. Writes ``compression.json``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from instil.files.json_files import write_json
from instil.plan.run import run
from instil.plan.statistics import paired_gain, summarize
from instil.recipe import build

RESULT = Path(__file__).with_name("compression.json")
NUM_LABELED = 200
SEEDS = [0, 1, 2, 3, 4]
EPOCHS = 10
TEACHER = {"model": "networks:cnn", "options": {"width": 16}}


def pruned(share: float, rounds: int, by: str = "magnitude") -> dict[str, Any]:
    """Return the section of a student that loses a share of its channels in rounds."""
    return {"changes": {"prune": {"share": share, "by": by}}, "rounds": rounds}


STUDENTS: dict[str, dict[str, Any]] = {
    "75 % pruned at once": pruned(0.75, 1),
    "75 % pruned, 2 rounds": pruned(0.75, 2),
    "learned steps, 4 bits": {"changes": {"lsq": {"bits": 4, "end_bits": 4}}},
    "2:4 sparse": {"changes": {"sparse": {}}},
}
OBJECTIVES: dict[str, dict[str, Any]] = {
    "labels": {"cross_entropy": {}},
    "distilled": {"cross_entropy": {}, "kd": {}},
}


def write_digits(sources: Path, path: Path) -> None:
    """Write digits of 14 x 14 pixels: 2,000 to train, 1,000 to validate and 2,000 to test."""
    data = np.load(sources / "mnist10k.npz")
    rows = np.r_[0:2000, 7000:10000]
    images = data["images"][rows].reshape(-1, 14, 2, 14, 2).mean((2, 4))
    np.savez(
        path,
        image=images.astype(np.uint8),
        label=data["labels"][rows],
        split=np.repeat([0, 1, 2], [2000, 1000, 2000]).astype(np.uint8),
    )


def recipe_of(folder: Path, student: dict[str, Any], arm: str) -> dict[str, Any]:
    """Return the recipe of a compressed student with the losses of an arm."""
    is_distilled = arm == "distilled"
    return {
        "data": {
            "name": f"npz:{folder / 'digits.npz'}",
            "num_labeled": NUM_LABELED,
            "batch_size": 100,
        },
        "teacher": TEACHER,
        "student": {"model": "teacher", **student},
        "objectives": OBJECTIVES[arm],
        "train": {"epochs": EPOCHS, "optimizer": {"lr": 5e-3}, "evaluate_every": EPOCHS},
        "teacher_train": {"epochs": 15, "optimizer": {"lr": 5e-3}, "evaluate_every": 15},
        "baselines": ["pseudo_labels"] if is_distilled else [],
        "seeds": SEEDS,
        "export": is_distilled,
        "device": "cpu",
    }


def measure(folder: Path, work: Path, student: dict[str, Any]) -> dict[str, Any]:
    """Return test accuracies of the arms of one student, and its size."""
    values: dict[str, list[float]] = {}
    result: dict[str, Any] = {}
    for arm in OBJECTIVES:
        out = Path(tempfile.mkdtemp(dir=work)) / "run"
        recipe = build(recipe_of(folder, student, arm))
        run(recipe, out, None, Console(quiet=True))
        for name, title in {"distilled": arm, "pseudo_labels": "pseudo-labels"}.items():
            files = [out / "checkpoint" / f"{name}-{seed}.json" for seed in SEEDS]
            if files[0].exists():
                records = [json.loads(file.read_text(encoding="utf-8")) for file in files]
                values[title] = [record["test"]["accuracy"] for record in records]
        result = json.loads((out / "result.json").read_text(encoding="utf-8"))
    gains = {
        other: paired_gain(values["distilled"], values[other]) for other in values if other != arm
    }
    return {
        "arms": {arm: summarize(own) for arm, own in values.items()},
        "gains": gains,
        "parameters": result["cost"]["student"]["parameters"],
        "bytes": result["export"]["onnx"]["bytes"],
        "exported_accuracy": result["export"]["onnx"]["accuracy"],
        "teacher": {
            "accuracy": result["teacher"]["accuracy"]["mean"],
            "parameters": result["cost"]["teacher"]["parameters"],
        },
    }


def main() -> None:
    """Measure all students and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sources", type=Path)
    parser.add_argument("--work", type=Path, help="folder of the runs; default: a temporary one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = options.work or Path(name)
        work.mkdir(parents=True, exist_ok=True)
        write_digits(options.sources, work / "digits.npz")
        students: dict[str, Any] = {}
        for title, student in STUDENTS.items():
            students[title] = measure(work, work, student)
            print(title, json.dumps(students[title]["arms"]), flush=True)
            write(students)


def write(students: dict[str, Any]) -> None:
    """Write the students that are measured so far."""
    content = {
        "num_labeled": NUM_LABELED,
        "epochs": EPOCHS,
        "seeds": SEEDS,
        "students": students,
    }
    write_json(RESULT, content)


if __name__ == "__main__":
    main()
