"""Continual learning on split MNIST: two new digits in each of five stages.

python benchmarks/continual.py DATA [--work FOLDER]

DATA has ``mnist10k.npz`` (``images`` uint8 (10000, 28, 28) and ``labels``; rows 0 to 6999 train,
to 7999 validation, then test). Images are averaged to 14 x 14 pixels, and 200 images of each digit
are for training. Methods with a memory keep 100 images. All arms have the same network and the same
number of passes over new images. Each arm has the best of three settings by the validation accuracy
on all ten digits, mean of two seeds. The test images are read with this choice and five new seeds.
Writes ``continual.json``.
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

RESULT = Path(__file__).with_name("continual.json")
NUM_TRAIN = 2000
MEMORY = 100
NUM_STAGES = 5
SEARCH_SEEDS = [100, 101]
FINAL_SEEDS = [0, 1, 2, 3, 4]
METRICS = ("accuracy", "average_accuracy", "incremental_accuracy", "forgetting")
EPOCHS = 10
GROWING = {"model": "previous", "grow_head": True}
SHARED = {"model": "previous", "shared_classes": True}
RATES: dict[str, tuple[float, float, float]] = {
    "fine-tuning": (1e-3, 3e-3, 1e-2),
    "joint training": (3e-3, 1e-2, 3e-2),
    "replay": (1e-3, 3e-3, 1e-2),
    "replay, nearest mean": (1e-3, 3e-3, 1e-2),
}
"""Learning rates of the stages after the first, for arms without a further option."""
STRENGTHS: dict[str, tuple[float, float]] = {
    "LwF": (1, 4),
    "iCaRL": (1, 4),
    "PODNet": (0.2, 1),
    "DER++": (1, 2),
}
"""Two weights of kd and podnet, or beta of der, for the other arms."""
EXEMPLARS: dict[str, dict[str, Any]] = {
    "replay": {"selection": "random"},
    "replay, nearest mean": {"classifier": "nearest_mean"},
    "iCaRL": {"classifier": "nearest_mean"},
    "PODNet": {"classifier": "nearest_mean"},
}
REFERENCES = ("fine-tuning", "replay", "replay, nearest mean")


def write_data(source: Path, target: Path) -> None:
    """Write the images of the three splits as a file of the source ``npz``."""
    with np.load(source) as arrays:
        image, label = arrays["images"], arrays["labels"]
    small = image.reshape(-1, 14, 2, 14, 2).mean((2, 4)).round().astype(np.uint8)
    split = np.repeat([0, 1, 2], [7000, 1000, 2000])
    np.savez(target, image=small, label=label, split=split)


def settings_of(arm: str) -> list[dict[str, float]]:
    """Return the three settings of an arm."""
    if arm in RATES:
        return [{"lr": lr} for lr in RATES[arm]]
    weak, strong = STRENGTHS[arm]
    pairs = ((3e-3, weak), (1e-2, weak), (1e-2, strong))
    return [{"lr": lr, "strength": strength} for lr, strength in pairs]


def recipe_of(arm: str, file: Path, setting: dict[str, float], seeds: list[int]) -> dict[str, Any]:
    """Return the recipe of an arm."""
    data: dict[str, Any] = {"name": "npz", "path": str(file), "rows": NUM_TRAIN, "batch_size": 64}
    train: dict[str, Any] = {"epochs": EPOCHS, "checkpoint_every": None, "evaluate_every": EPOCHS}
    recipe: dict[str, Any] = {
        "data": data,
        "student": {"model": "networks:cnn", "options": {"width": 8}},
        "objectives": {"cross_entropy": {}},
        "train": train | {"optimizer": {"lr": 3e-3}},
        "baselines": [],
        "seeds": seeds,
        "export": False,
    }
    if arm == "joint training":
        return recipe | {"train": train | {"optimizer": {"lr": setting["lr"]}}}
    data["test_classes"] = "seen"
    if arm in EXEMPLARS:
        data["exemplars"] = {"size": MEMORY, **EXEMPLARS[arm]}
    if arm == "DER++":
        memory = {"size": MEMORY, "alpha": 0.2, "beta": setting["strength"]}
        recipe["scheme"] = {"type": "der", **memory}
    stage: dict[str, Any] = {"student": GROWING, "train": {"optimizer": {"lr": setting["lr"]}}}
    if arm in ("LwF", "iCaRL"):
        kd = {"temperature": 2, "weight": setting["strength"]}
        stage |= {"teacher": SHARED, "objectives": {"cross_entropy": {}, "kd": kd}}
    if arm == "PODNet":
        podnet = {"weight": setting["strength"]}
        stage |= {"teacher": "previous", "objectives": {"cross_entropy": {}, "podnet": podnet}}
    recipe["stages"] = [
        (stage if index else {}) | {"data": {"class_subset": [2 * index, 2 * index + 1]}}
        for index in range(NUM_STAGES)
    ]
    return recipe


def records_of(
    arm: str, file: Path, work: Path, setting: dict[str, float], seeds: list[int]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Train an arm; return the record of each seed and the result of the run."""
    out = Path(tempfile.mkdtemp(dir=work)) / "run"
    run(build(recipe_of(arm, file, setting, seeds)), out, None, Console(quiet=True))
    files = [out / "checkpoint" / f"distilled-{seed}.json" for seed in seeds]
    records = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    return records, json.loads((out / "result.json").read_text(encoding="utf-8"))


def measure(arm: str, file: Path, work: Path) -> dict[str, Any]:
    """Choose the setting of an arm, and return its test metrics with new seeds."""
    scores: list[float] = []
    for setting in settings_of(arm):
        records, _ = records_of(arm, file, work, setting, SEARCH_SEEDS)
        scores.append(float(np.mean([record["validation"]["accuracy"] for record in records])))
    best = settings_of(arm)[int(np.argmax(scores))]
    records, result = records_of(arm, file, work, best, FINAL_SEEDS)
    tests = [record["test"] for record in records]
    entry: dict[str, Any] = {"setting": best, "validation": scores}
    for name in METRICS:
        if all(name in test for test in tests):
            entry[name] = summarize([test[name] for test in tests])
    if "stages" in result:
        after = result["stages"]["arms"]["distilled"]["after"]
        entry["after"] = [[cell and cell["mean"] for cell in row] for row in after]
    return entry


def main() -> None:
    """Measure all arms; those in the file of results are kept."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder with mnist10k.npz")
    parser.add_argument("--work", type=Path, help="folder of the data and runs")
    options = parser.parse_args()
    work = options.work or Path(tempfile.mkdtemp())
    work.mkdir(parents=True, exist_ok=True)
    file = work / "split_mnist.npz"
    write_data(options.data / "mnist10k.npz", file)
    arms: dict[str, Any] = {}
    if RESULT.exists():
        arms = json.loads(RESULT.read_text(encoding="utf-8"))["arms"]
    for arm in (*RATES, *STRENGTHS):
        if arm not in arms:
            arms[arm] = measure(arm, file, work)
            write_result(arms)


def write_result(arms: dict[str, Any]) -> None:
    """Write the results so far, with the gains over each reference."""
    for arm in arms.values():
        arm["gains"] = {
            name: paired_gain(arm["accuracy"]["values"], arms[name]["accuracy"]["values"])
            for name in REFERENCES
            if name in arms and arms[name] is not arm
        }
    result = {
        "train": NUM_TRAIN,
        "memory": MEMORY,
        "stages": NUM_STAGES,
        "seeds": FINAL_SEEDS,
        "arms": arms,
    }
    write_json(RESULT, result)


if __name__ == "__main__":
    main()
