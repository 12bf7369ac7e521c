"""Overhead of a step of every scheme, and number of forward passes of each network.

python benchmarks/schemes.py [NAME ...] [--steps 12] [--json benchmarks/schemes.json]

Each scheme is built from a shipped recipe with untrained networks of width 48 (transformers: 128)
and batches of 256. The passes are the forward passes of networks and losses, and backward passes.

- ``time``: the step without the optimizer, divided by the sum of its passes. The excess over 1 is
  the overhead of the scheme and of the loop. Processor time of one thread, minimum over the steps;
  both sides of a ratio come from one step.
- ``memory``: bytes that the whole step keeps for backward, divided by those that the passes keep.
- ``passes``: samples that each network processed, in batches.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml
from methods import ROOT, prepared
from torch import Tensor, nn

from instil import catalogue, recipe
from instil.core import Net, Objective, Objectives, Scheme, Teacher, first_tensor
from instil.engine import Engine, Optimization
from instil.files.atomic import atomic
from instil.recipe.overrides import override, parse
from instil.recipe.packaged import packaged_recipes
from instil.training.step import train_step

WIDTHS, BATCH = {"cnn": 48, "causal_transformer": 128}, 256
TARGET = 1.05
EXTRA_ROWS = {
    "mutual, 4 nets": ("mutual", ["scheme.peers=[cnn, cnn, cnn]"]),
    "mutual, 4 nets, sequential": (
        "mutual",
        ["scheme.peers=[cnn, cnn, cnn]", "scheme.sequential=true"],
    ),
    "sftn": (
        "offline",
        [
            "scheme={type: sftn, branch: {model: cnn}}",
            "teacher=null",
            "objectives={cross_entropy: {}}",
        ],
    ),
    "adversarial, maps": (
        "adversarial",
        ["scheme.role=features", "scheme.spectral_norm=true", "scheme.penalty=1"],
    ),
}
"""Rows in addition to one per scheme -> name of the scheme and overrides."""


def rows() -> dict[str, tuple[Path, list[str]]]:
    """Return recipe and overrides of each row: the recipe named like the scheme, or one with it."""
    recipes: dict[str, Path] = {}
    # Files of the checkout: the package may be installed elsewhere.
    folder = ROOT / "src/instil/recipes"
    for path in sorted(folder / f"{name}.yaml" for name in packaged_recipes()):
        chosen = yaml.safe_load(path.read_text(encoding="utf-8")).get("scheme", "offline")
        name = chosen if isinstance(chosen, str) else chosen.get("type", "offline")
        if path.stem == name or name not in recipes:
            recipes[name] = path
    recipes["offline"] = folder / "classification/kd.yaml"
    schemes = {
        name: (recipes[name], list[str]()) for name in catalogue.names("scheme") if name in recipes
    }
    return schemes | {row: (recipes[name], options) for row, (name, options) in EXTRA_ROWS.items()}


def scaled(path: Path, options: list[str]) -> recipe.Recipe:
    """Return the recipe with wide networks and large batches; all other options stay."""
    config = override(parse(path.read_text(encoding="utf-8"), str(path)), options)

    def wide(part: Any) -> Any:
        if isinstance(part, list):
            return [wide(one) for one in part]
        if isinstance(part, str) and part.removeprefix("networks:") in WIDTHS:
            part = {"model": part}
        if not isinstance(part, dict):
            return part
        scaled_part = {key: wide(value) if key != "model" else value for key, value in part.items()}
        width = WIDTHS.get(str(part.get("model")).removeprefix("networks:"))
        return (
            scaled_part | {"options": {**part.get("options", {}), "width": width}}
            if width
            else scaled_part
        )

    scaled_config = {key: wide(value) for key, value in config.items()}
    if isinstance(scaled_config["data"], str):
        scaled_config["data"] = {"name": scaled_config["data"]}
    scaled_config["data"] = scaled_config["data"] | {"batch_size": BATCH}
    return recipe.build(
        {"folder": str(path.parent), "name": path.stem} | scaled_config | {"export": False}
    )


def parts_of(module: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Yield networks, losses and their modules with their names; containers are traversed."""
    for key, child in module.named_children():
        path = f"{name}.{key}".strip(".")
        if isinstance(child, (Teacher, Objectives, nn.ModuleList, nn.ModuleDict, Scheme)):
            yield from parts_of(child, path)
            continue
        yield path, child
        # A scheme may call a module of a loss, such as an adapter.
        if isinstance(child, Objective):
            yield from parts_of(child, path)


class Passes:
    """Recorder of the outermost passes of a scheme's parts: their time and saved tensors."""

    def __init__(self, scheme: Scheme):
        self.scheme = scheme
        self.seconds = 0.0
        self.depth = 0
        self.start = 0.0
        self.samples_of: Counter[str] = Counter()
        self.saved: dict[int, tuple[Tensor, bool]] = {}
        self.rows = 1

    @contextmanager
    def timing(self) -> Iterator[None]:
        """Time one pass; a nested pass is part of the outer one."""
        if self.depth == 0:
            self.start = time.process_time()
        self.depth += 1
        try:
            yield
        finally:
            self.depth -= 1
            if self.depth == 0:
                self.seconds += time.process_time() - self.start

    def wrapped(
        self, run: Callable[..., Any], name: str = "", net: bool = False
    ) -> Callable[..., Any]:
        def timed(*arguments: Any, **options: Any) -> Any:
            if net:
                self.samples_of[name] += len(first_tensor(arguments[0]))
            with self.timing():
                return run(*arguments, **options)

        return timed

    def keep(self, tensor: Tensor) -> Tensor:
        address = tensor.untyped_storage().data_ptr()
        self.saved[address] = (
            tensor,
            self.depth > 0 or (address in self.saved and self.saved[address][1]),
        )
        return tensor

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Time every pass inside the context."""
        changed: list[tuple[Any, str, Any, bool]] = []

        def replace(owner: Any, attribute: str, new: Any) -> None:
            changed.append((owner, attribute, getattr(owner, attribute), attribute in vars(owner)))
            setattr(owner, attribute, new)

        for name, part in parts_of(self.scheme):
            replace(
                part,
                "forward",
                self.wrapped(part.forward, name.removesuffix(".net"), isinstance(part, Net)),
            )
            if isinstance(part, Objective):
                replace(part, "state_updates", self.wrapped(part.state_updates))
        module = sys.modules[type(self.scheme).__module__]
        for name, function in list(vars(module).items()):
            if name.endswith("_loss"):
                replace(module, name, self.wrapped(function))
        replace(torch.autograd, "backward", self.wrapped(torch.autograd.backward))
        replace(torch.autograd, "grad", self.wrapped(torch.autograd.grad))
        try:
            yield
        finally:
            for owner, attribute, old, its_own in reversed(changed):
                if its_own:
                    setattr(owner, attribute, old)
                else:
                    delattr(owner, attribute)


def cost(config: recipe.Recipe, steps: int) -> dict[str, Any]:
    """Return ratios of time and memory, milliseconds per step, and batches per network."""
    scheme, batches = prepared(config)
    engine = Engine("cpu")
    engine.setup(scheme.train(), lambda _: Optimization("sgd", {"lr": 1e-4}))
    optimizing = 0.0
    stepped = engine.step

    def timed(learner: Any) -> None:
        nonlocal optimizing
        start = time.process_time()
        stepped(learner)
        optimizing += time.process_time() - start

    engine.step = timed  # type: ignore[method-assign]
    timings = []
    for index in range(steps):
        optimizing, passes = 0.0, Passes(scheme)
        batch = batches[index % len(batches)] | {"step": torch.tensor(index)}
        with passes.watching():
            start = time.process_time()
            train_step(engine, scheme, [batch])
            timings.append((time.process_time() - start - optimizing, passes.seconds))
    passes = Passes(scheme)
    with (
        passes.watching(),
        torch.autograd.graph.saved_tensors_hooks(passes.keep, lambda tensor: tensor),
    ):
        train_step(engine, scheme, [batches[0]])
    sizes = [
        (tensor.untyped_storage().nbytes(), inside) for tensor, inside in passes.saved.values()
    ]
    bytes_of_passes = sum(size for size, inside in sizes if inside)
    whole, passes_seconds = min(timings[2:], key=lambda pair: pair[0] / pair[1])
    return {
        "time": round(whole / passes_seconds, 3),
        "memory": round(sum(size for size, _ in sizes) / bytes_of_passes, 3),
        "ms": round(1000 * min(whole for whole, _ in timings), 1),
        "passes": {
            name: round(seen / len(first_tensor(batches[0])), 2)
            for name, seen in passes.samples_of.items()
        },
    }


def measured(row: str, steps: int) -> dict[str, Any]:
    """Return one row, with ``error`` if it fails."""
    path, options = rows()[row]
    try:
        return {
            "scheme": row,
            "recipe": str(path.relative_to(ROOT)),
            **cost(scaled(path, options), steps),
        }
    except Exception as error:  # one failing scheme must not stop the table
        return {"scheme": row, "error": f"{type(error).__name__}: {error}"}


def line(row: dict[str, Any]) -> str:
    """Format a row as text."""
    if "error" in row:
        return f"{row['scheme']:28} {row['error']}"
    passes = "  ".join(f"{name} {count:g}" for name, count in row["passes"].items())
    return f"{row['scheme']:28} {row['time']:6.3f} {row['memory']:7.3f} {row['ms']:9.1f}  {passes}"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="only these rows")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument(
        "--json",
        type=Path,
        help="also write the table to this file; its other rows are kept",
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, dict[str, Any]] = {}
    if options.json and options.json.exists():
        results = {
            row["scheme"]: row
            for row in json.loads(options.json.read_text(encoding="utf-8"))["rows"]
        }
    print(f"{'scheme':28} {'time':>6} {'memory':>7} {'ms':>9}  passes")
    for name in rows():
        if not options.names or name in options.names:
            results[name] = measured(name, options.steps)
            print(line(results[name]), flush=True)
    if options.json:
        ordered = [results[name] for name in rows() if name in results]
        with atomic(options.json) as temporary:
            about = {
                "torch": torch.__version__,
                "widths": WIDTHS,
                "batch": BATCH,
                "steps": options.steps,
                "target": TARGET,
            }
            temporary.write_text(
                json.dumps(about | {"rows": ordered}, indent=1) + "\n", encoding="utf-8"
            )
    return 1 if any("error" in row for row in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
