"""Synthetic run folder: three seeds of a student that is distilled with few labels."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from statistics import mean, stdev
from typing import Any

LEVELS = {
    "teacher": 0.955,
    "alone": 0.812,
    "label_smoothing": 0.828,
    "pseudo_labels": 0.921,
    "distilled": 0.938,
}
ECE = {
    "teacher": 0.021,
    "alone": 0.094,
    "label_smoothing": 0.071,
    "pseudo_labels": 0.052,
    "distilled": 0.024,
}
AGREEMENT = {"alone": 0.824, "label_smoothing": 0.839, "pseudo_labels": 0.937, "distilled": 0.959}
RECIPE = """\
task: classification
data: {name: digits, num_labeled: 100, batch_size: 64}
teacher: {model: networks:cnn, options: {width: 32}}
student: {model: networks:mlp, options: {width: 16}}
scheme: offline
objectives:
  cross_entropy: {}
  kd: {temperature: 4, weight: 2.0}
train: {epochs: 20, optimizer: {type: adamw, lr: 1e-3, weight_decay: 0.05}}
seeds: [0, 1, 2]
"""


def summary(values: list[float]) -> dict[str, Any]:
    return {
        "mean": mean(values),
        "std": stdev(values) if len(values) > 1 else None,
        "values": values,
    }


def difference(over: list[float], under: list[float]) -> dict[str, Any]:
    gaps = [a - b for a, b in zip(over, under, strict=True)]
    if len(gaps) < 2:
        return {
            "mean": gaps[0],
            "std": None,
            "interval": None,
            "level": 0.95,
            "paired": True,
            "significant": False,
        }
    half = 4.303 * stdev(gaps) / math.sqrt(len(gaps))
    interval = [mean(gaps) - half, mean(gaps) + half]
    return {
        "mean": mean(gaps),
        "std": stdev(gaps),
        "interval": interval,
        "level": 0.95,
        "paired": True,
        "significant": interval[0] > 0 or interval[1] < 0,
    }


def bins(level: float, error: float, chance: random.Random) -> list[dict[str, float]]:
    centres = [(2 * k + 1) / 20 for k in range(10)]
    return [
        {
            "confidence": c,
            "accuracy": max(0.0, min(1.0, c - 1.6 * error + chance.gauss(0, 0.01))),
            "count": int(3 + 480 * c**6 * level),
        }
        for c in centres
    ]


def confusion(n: int, level: float, chance: random.Random) -> list[list[int]]:
    rows = [[0] * n for _ in range(n)]
    for sample in range(50 * n):
        true = sample % n
        rows[true][
            true
            if chance.random() < level
            else chance.choice([(true + 5) % n, (true + 3) % n, chance.randrange(n)])
        ] += 1
    return rows


def curves(arm: str, seed: int | None, epochs: int, chance: random.Random) -> list[dict[str, Any]]:
    rows = []
    for epoch in range(epochs):
        done = (epoch + 1) / epochs
        rise = 1 - math.exp(-5 * done)
        losses = {
            "student/cross_entropy": 2.2 * math.exp(-3.5 * done) + 0.03,
            **({"student/kd": 2.9 * math.exp(-2 * done) + 0.3} if arm == "distilled" else {}),
        }
        validation = {
            "accuracy": LEVELS[arm] * rise + chance.gauss(0, 0.006),
            "loss": 2.3 - 2 * rise,
            "ece": ECE[arm],
        }
        if arm in AGREEMENT:
            validation["agreement"] = AGREEMENT[arm] * rise + chance.gauss(0, 0.006)
        rows.append(
            {
                "seed": seed,
                "arm": arm,
                "stage": 0,
                "epoch": epoch + 1,
                "step": 16 * (epoch + 1),
                "losses": losses,
                "lr": 1e-3,
                "seconds": 0.4,
                "validation": validation,
            }
        )
    return rows


def result(seeds: list[int], classes: list[str]) -> dict[str, Any]:
    chance = random.Random(0)
    result: dict[str, Any] = {
        "task": "classification",
        "kind": "single",
        "classes": classes,
        "data": {"name": "digits", "train": 1000, "labelled": 100, "validation": 297, "test": 500},
        "scheme": "offline",
        "objectives": {"cross_entropy": {}, "kd": {"temperature": 4, "weight": 2.0}},
        "seeds": seeds,
        "exported_seed": seeds[-1],
        "warnings": [],
        "status": "complete",
    }
    for arm, level in LEVELS.items():
        values = [level] if arm == "teacher" else [level + chance.gauss(0, 0.004) for _ in seeds]
        result[arm] = {
            "accuracy": summary(values),
            "loss": summary([1.1 - v for v in values]),
            "ece": summary([ECE[arm] + chance.gauss(0, 0.002) for _ in values]),
        }
        if arm in AGREEMENT:
            result[arm]["agreement"] = summary(
                [AGREEMENT[arm] + chance.gauss(0, 0.003) for _ in seeds]
            )
    distilled = result["distilled"]["accuracy"]["values"]
    result["gain"] = difference(distilled, result["alone"]["accuracy"]["values"])
    result["gains"] = {
        arm: difference(distilled, result[arm]["accuracy"]["values"])
        for arm in ("label_smoothing", "pseudo_labels")
    }
    latency = {"batch_size": 1, "threads": 2}
    result["cost"] = {
        "teacher": {
            "parameters": 93322,
            "bytes": 376100,
            "latency": {"median_ms": 0.812, "p90_ms": 0.9, **latency},
            "seconds": 8.4,
        },
        "student": {
            "parameters": 4714,
            "bytes": 19872,
            "latency": {"median_ms": 0.0957, "p90_ms": 0.121, **latency},
            "seconds": 2.9,
        },
    }
    result["details"] = {
        arm: {
            "calibration": bins(LEVELS[arm], ECE[arm], chance),
            "confusion": confusion(len(classes), LEVELS[arm], chance),
        }
        for arm in ("teacher", "alone", "distilled")
    }
    result["export"] = {
        "onnx": {
            "file": "student.onnx",
            "bytes": 20310,
            "max_difference": 4.8e-7,
            "latency": {"median_ms": 0.0163, "p90_ms": 0.0171, **latency},
        },
        "int8": {
            "file": "student.int8.onnx",
            "bytes": 9120,
            "accuracy": 0.934,
            "accuracy_float": distilled[-1],
            "latency": {"median_ms": 0.0207, "p90_ms": 0.0218, **latency},
        },
    }
    return result


def make_run(
    folder: Path, seeds: int = 3, classes: list[str] | None = None, epochs: int = 20
) -> Path:
    """Write a complete run folder."""
    folder.mkdir(parents=True, exist_ok=True)
    chance, numbers = random.Random(1), list(range(seeds))
    rows = curves("teacher", None, epochs, chance)
    for seed in numbers:
        for arm in LEVELS:
            rows += curves(arm, seed, epochs, chance) if arm != "teacher" else []
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    (folder / "result.json").write_text(
        json.dumps(result(numbers, classes or [str(digit) for digit in range(10)])), "utf-8"
    )
    environment = {
        "versions": {"instil": "0.1.0", "python": "3.11.9", "torch": "2.9.1", "numpy": "2.1.0"},
        "hardware": {
            "device": "cpu",
            "processor": "x86_64",
            "cores": 2,
            "memory_bytes": 8217550848,
        },
        "seeds": numbers,
        "git": {"commit": "3f2a9c1", "dirty": False},
    }
    (folder / "environment.json").write_text(json.dumps(environment), "utf-8")
    (folder / "recipe.yaml").write_text(RECIPE, "utf-8")
    return folder


def change(folder: Path, edit: Any) -> Path:
    """Rewrite result.json after ``edit(result)``."""
    result = json.loads((folder / "result.json").read_text("utf-8"))
    edit(result)
    (folder / "result.json").write_text(json.dumps(result), "utf-8")
    return folder
