"""What a step of every scheme costs beside its own passes, and how often it asks each net.

python benchmarks/schemes.py [NAME ...] [--steps 12] [--json benchmarks/schemes.json]

Each scheme is built from a shipped recipe of its own, with untrained nets of width 48
(transformers: 128) and batches of 256. Its passes are the forward passes of nets and losses, timed
where they happen, and all that autograd runs backwards. The ratio is the step, without the
optimizer, over the sum of its passes: what is above 1 is the scheme's own arithmetic, its
bookkeeping and that of the loop. Processor time of one thread, the least of the steps' ratios: both
sides of a ratio are of one step, so that a busy machine slows both. The ratio of memory is of the
bytes kept for backward: in the whole step, over those kept by the passes. ``passes`` are the
samples that each net saw, in batches: a K-fold forward shows there.
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
from instil.training.step import train_step

WIDTHS, BATCH = {"cnn": 48, "causal_transformer": 128}, 256
TARGET = 1.05
MORE = {
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
"""Rows beside the one of each scheme: its name and overrides."""


def rows() -> dict[str, tuple[Path, list[str]]]:
    """Recipe and overrides of each row: the recipe of the scheme's name, or one that uses it."""
    found: dict[str, Path] = {}
    for path in sorted((ROOT / "src/instil/recipes").rglob("*.yaml")):
        chosen = yaml.safe_load(path.read_text(encoding="utf-8")).get("scheme", "offline")
        name = chosen if isinstance(chosen, str) else chosen.get("type", "offline")
        if path.stem == name or name not in found:
            found[name] = path
    found["offline"] = ROOT / "src/instil/recipes/classification/kd.yaml"
    plain = {
        name: (found[name], list[str]()) for name in catalogue.names("scheme") if name in found
    }
    return plain | {row: (found[name], options) for row, (name, options) in MORE.items()}


def scaled(path: Path, options: list[str]) -> recipe.Recipe:
    """The recipe with wide nets and large batches; all other options are its own."""
    given = override(parse(path.read_text(encoding="utf-8"), str(path)), options)

    def wide(part: Any) -> Any:
        if isinstance(part, list):
            return [wide(one) for one in part]
        if isinstance(part, str) and part.removeprefix("networks:") in WIDTHS:
            part = {"model": part}
        if not isinstance(part, dict):
            return part
        grown = {key: wide(value) if key != "model" else value for key, value in part.items()}
        width = WIDTHS.get(str(part.get("model")).removeprefix("networks:"))
        return grown | {"options": {**part.get("options", {}), "width": width}} if width else grown

    made = {key: wide(value) for key, value in given.items()}
    if isinstance(made["data"], str):
        made["data"] = {"name": made["data"]}
    made["data"] = made["data"] | {"batch_size": BATCH}
    return recipe.build({"folder": str(path.parent), "name": path.stem} | made | {"export": False})


def parts_of(module: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The nets and losses in a scheme by name, and what losses learn with; what only holds others
    is gone through.
    """
    for key, child in module.named_children():
        path = f"{name}.{key}".strip(".")
        if isinstance(child, (Teacher, Objectives, nn.ModuleList, nn.ModuleDict, Scheme)):
            yield from parts_of(child, path)
            continue
        yield path, child
        if isinstance(child, Objective):  # a scheme may ask for what a loss makes of a stage
            yield from parts_of(child, path)


class Passes:
    """Times the outermost passes of a scheme's parts where they happen, and notes what they keep
    for backward.
    """

    def __init__(self, scheme: Scheme):
        self.scheme = scheme
        self.seconds, self.depth, self.began = 0.0, 0, 0.0
        self.asked: Counter[str] = Counter()
        self.kept: dict[int, tuple[Tensor, bool]] = {}
        self.rows = 1

    @contextmanager
    def timing(self) -> Iterator[None]:
        """One pass; inside another it is part of that."""
        if self.depth == 0:
            self.began = time.process_time()
        self.depth += 1
        try:
            yield
        finally:
            self.depth -= 1
            if self.depth == 0:
                self.seconds += time.process_time() - self.began

    def wrapped(
        self, run: Callable[..., Any], name: str = "", net: bool = False
    ) -> Callable[..., Any]:
        def timed(*given: Any, **options: Any) -> Any:
            if net:
                self.asked[name] += len(first_tensor(given[0]))
            with self.timing():
                return run(*given, **options)

        return timed

    def keep(self, tensor: Tensor) -> Tensor:
        address = tensor.untyped_storage().data_ptr()
        self.kept[address] = (
            tensor,
            self.depth > 0 or (address in self.kept and self.kept[address][1]),
        )
        return tensor

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Inside, every pass is timed."""
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
                replace(part, "keep", self.wrapped(part.keep))
        own = sys.modules[type(self.scheme).__module__]
        for name, function in list(vars(own).items()):
            if name.endswith("_loss"):
                replace(own, name, self.wrapped(function))
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


def cost(made: recipe.Recipe, steps: int) -> dict[str, Any]:
    """The ratios of time and memory, the milliseconds of a step, and how many batches each net saw
    in it.
    """
    scheme, batches = prepared(made)
    engine = Engine("cpu")
    engine.setup(scheme.train(), lambda _: Optimization("sgd", {"lr": 1e-4}))
    optimizing = 0.0
    stepped = engine.step

    def timed(learner: Any) -> None:
        nonlocal optimizing
        began = time.process_time()
        stepped(learner)
        optimizing += time.process_time() - began

    engine.step = timed  # type: ignore[method-assign]
    found = []
    for number in range(steps):
        optimizing, passes = 0.0, Passes(scheme)
        batch = batches[number % len(batches)] | {"step": torch.tensor(number)}
        with passes.watching():
            began = time.process_time()
            train_step(engine, scheme, [batch])
            found.append((time.process_time() - began - optimizing, passes.seconds))
    passes = Passes(scheme)
    with (
        passes.watching(),
        torch.autograd.graph.saved_tensors_hooks(passes.keep, lambda tensor: tensor),
    ):
        train_step(engine, scheme, [batches[0]])
    sizes = [(tensor.untyped_storage().nbytes(), inside) for tensor, inside in passes.kept.values()]
    of_passes = sum(size for size, inside in sizes if inside)
    whole, own = min(found[2:], key=lambda pair: pair[0] / pair[1])
    return {
        "time": round(whole / own, 3),
        "memory": round(sum(size for size, _ in sizes) / of_passes, 3),
        "ms": round(1000 * min(whole for whole, _ in found), 1),
        "passes": {
            name: round(seen / len(first_tensor(batches[0])), 2)
            for name, seen in passes.asked.items()
        },
    }


def measured(row: str, steps: int) -> dict[str, Any]:
    """One row; what fails says why."""
    path, options = rows()[row]
    try:
        return {
            "scheme": row,
            "recipe": str(path.relative_to(ROOT)),
            **cost(scaled(path, options), steps),
        }
    except Exception as error:  # one scheme must not cost the table
        return {"scheme": row, "error": f"{type(error).__name__}: {error}"}


def line(row: dict[str, Any]) -> str:
    """A row as text."""
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
        help="write the table there too; rows that are there already and were not asked for stay",
    )
    given = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, dict[str, Any]] = {}
    if given.json and given.json.exists():
        found = {
            row["scheme"]: row for row in json.loads(given.json.read_text(encoding="utf-8"))["rows"]
        }
    print(f"{'scheme':28} {'time':>6} {'memory':>7} {'ms':>9}  passes")
    for name in rows():
        if not given.names or name in given.names:
            found[name] = measured(name, given.steps)
            print(line(found[name]), flush=True)
    if given.json:
        ordered = [found[name] for name in rows() if name in found]
        with atomic(given.json) as temporary:
            about = {
                "torch": torch.__version__,
                "widths": WIDTHS,
                "batch": BATCH,
                "steps": given.steps,
                "target": TARGET,
            }
            temporary.write_text(
                json.dumps(about | {"rows": ordered}, indent=1) + "\n", encoding="utf-8"
            )
    return 1 if any("error" in row for row in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
