"""Time forward and backward of every objective and loss function.

python benchmarks/losses.py [NAME ...] [--json] [--rounds 7] [--device cpu]

NAME is a part of a row's name; without one, all rows are measured. Rows ``objective NAME`` are
generated from the catalogue (``objective_cases.py``). The other rows compare a loss function with
a few lines of plain PyTorch, and with torchdistill if it is installed (``loss_cases.py``).

A ratio is the time of ``instil`` divided by the other time, as a median over rounds. All
formulations take turns in each round, so a slow phase of the machine affects all of them. ``ms`` is
the median time of ``instil``.
On a CPU it is processor time of one thread, on a GPU elapsed time. Memory is the maximum that
forward and backward allocate beyond the inputs. A plain formulation has no checks, no unlabelled
items and no care for large values.

With tensors of some megabytes the C library may return pages to the system after each use, which
moves a ratio by a third. For steady figures set MALLOC_MMAP_THRESHOLD_=4000000000 and
MALLOC_TRIM_THRESHOLD_=8000000000 in the environment.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace as Inputs
from typing import Any

import torch
from loss_cases import CASES, SIZES, inputs
from objective_cases import objective_case, objective_cases
from torch import Tensor

from instil import catalogue

Run = Callable[[], Tensor]
Runs = dict[str, Run]
TURN = 0.05
"""Shortest duration of a turn in seconds; short passes are repeated."""


def loss_function(name: str) -> Callable[..., Tensor]:
    """Return a loss function of the catalogue by its name."""
    module = importlib.import_module(catalogue.losses()[name])
    function: Callable[..., Tensor] = getattr(module, name)
    return function


def formulations(name: str, sample: Inputs) -> Runs:
    """Return ``instil``, and ``torchdistill`` and ``plain`` where the case has them."""
    case = CASES[name]
    runs: Runs = {"instil": lambda: case.instil(loss_function(name.split()[0]), sample)}
    if case.torchdistill is not None:
        try:
            mid_level = importlib.import_module("torchdistill.losses.mid_level")
            runs["torchdistill"] = case.torchdistill(mid_level, sample)
        except ImportError:
            pass
    if case.plain is not None:
        plain = case.plain
        runs["plain"] = lambda: plain(sample)
    return runs


def cases(
    names: Iterable[str], sizes: dict[str, dict[str, Any]], device: str = "cpu"
) -> Iterator[tuple[str, Inputs, Runs]]:
    """Yield name, inputs and formulations of each row."""
    for name in names:
        if name not in CASES:
            sample, run = objective_case(name, device=device)
            yield name, sample, {"instil": run}
            continue
        for kind in CASES[name].kinds:
            sample = inputs(kind, sizes[kind], device)
            yield name, sample, formulations(name, sample)


def gradients(run: Run, sample: Inputs) -> tuple[Tensor, list[Tensor], tuple[Tensor | None, ...]]:
    """Return the loss, the inputs that require a gradient, and their gradients (None: not read)."""
    leaves = [
        value
        for value in vars(sample).values()
        if isinstance(value, Tensor) and value.requires_grad
    ]
    loss = run()
    return loss.detach(), leaves, torch.autograd.grad(loss, leaves, allow_unused=True)


def gradient(run: Run, sample: Inputs) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return the loss and its gradient for all leaf inputs; zeros for unused inputs."""
    loss, leaves, grads = gradients(run, sample)
    complete = []
    for leaf, grad in zip(leaves, grads, strict=True):
        complete.append(torch.zeros_like(leaf) if grad is None else grad)
    return loss, tuple(complete)


def seconds(run: Run, sample: Inputs, times: int = 1) -> float:
    """Return the mean seconds of a forward and backward pass over several passes."""
    on_gpu = sample.student.device.type == "cuda"
    clock = time.perf_counter if on_gpu else time.process_time
    wait = torch.cuda.synchronize if on_gpu else lambda: None
    # The first of several passes is not timed: it finds the memory as another formulation left it.
    if times > 1:
        gradients(run, sample)
    wait()
    start = clock()
    for _ in range(times):
        gradients(run, sample)
    wait()
    return (clock() - start) / times


def peak_memory(run: Run, sample: Inputs) -> float:
    """Return the maximum MiB that forward and backward allocate beyond the inputs."""
    if sample.student.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        gradients(run, sample)
        return float(torch.cuda.max_memory_allocated() - before) / 2**20
    with torch.autograd.profiler.profile(profile_memory=True) as profile:
        gradients(run, sample)
    events = sorted(
        (event.start_ns(), event.nbytes())
        for event in profile.kineto_results.events()
        if event.name() == "[memory]"
    )
    allocated = 0
    peak = 0
    for _, change in events:
        allocated += change
        peak = max(peak, allocated)
    return peak / 2**20


def measure(
    names: list[str], rounds: int, sizes: dict[str, dict[str, Any]], device: str = "cpu"
) -> Iterator[dict[str, Any]]:
    """Yield a row of figures for each case and size."""
    for name, sample, runs in cases(names, sizes, device):
        row: dict[str, Any] = {"loss": name, "size": sample.size}
        times = turns(runs, sample, rounds)
        row["ms"] = round(1000 * statistics.median(times["instil"]), 2)
        for other in ("torchdistill", "plain"):
            row[other] = ratio(times["instil"], times.get(other, []))
        for formulation in ("instil", "plain"):
            run = runs.get(formulation)
            row[f"MiB_{formulation}"] = None if run is None else round(peak_memory(run, sample), 1)
        yield row


def turns(runs: Runs, sample: Inputs, rounds: int) -> dict[str, list[float]]:
    """Return the seconds per pass of each formulation in each round, in alternating order."""
    warm = max(seconds(run, sample) for run in runs.values())
    times = max(1, round(TURN / max(warm, 1e-5)))
    measured: dict[str, list[float]] = {formulation: [] for formulation in runs}
    for turn in range(rounds):
        for formulation in sorted(runs, reverse=turn % 2 == 1):
            measured[formulation].append(seconds(runs[formulation], sample, times))
    return measured


def ratio(instil_times: list[float], other_times: list[float]) -> float | None:
    """Return the median ratio of the times; None without another formulation."""
    if not other_times:
        return None
    pairs = zip(instil_times, other_times, strict=True)
    return round(statistics.median(own / other for own, other in pairs), 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="parts of the names of rows")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each formulation")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    parts = options.names or [""]
    every = [*CASES, *objective_cases()]
    names = [name for name in every if any(part in name for part in parts)]
    rows = measure(names, options.rounds, SIZES, options.device)
    compared = {name.split()[0] for name in CASES}
    not_compared = sorted(set(catalogue.losses()) - compared)
    if options.json:
        about = {
            "device": options.device,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "rounds": options.rounds,
        }
        print(json.dumps(about | {"rows": list(rows), "not_compared": not_compared}))
        return
    print(
        f"{'loss':34} {'size':22} {'ms':>9} {'to torchdistill':>16} {'to plain':>9} {'MiB':>8} "
        f"{'plain MiB':>10}"
    )
    for row in rows:
        shown = {key: "" if value is None else value for key, value in row.items()}
        print(
            "{loss:34} {size:22} {ms:9} {torchdistill:>16} {plain:>9} {MiB_instil:>8} "
            "{MiB_plain:>10}".format(**shown),
            flush=True,
        )
    if not_compared:
        print(f"Without another formulation: {', '.join(not_compared)}")


if __name__ == "__main__":
    main()
