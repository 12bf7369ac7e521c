"""Time forward and backward of the loss functions, each beside torchdistill's of the same method and beside a few lines of plain PyTorch.

python benchmarks/losses.py [NAME ...] [--json] [--rounds 7] [--device cpu]

NAME is a part of a loss function's name; without one, all are measured. The columns of a ratio are ours over theirs: the median over rounds in
each of which all formulations take a turn, so that a machine that slows down slows all. The time is the median of ours. On a CPU it is processor
time of one thread (other work on the machine does not count), on a GPU elapsed time. Memory is the most that forward and backward hold beyond the
inputs. A plain formulation has no checks, no unlabelled items and no care for large values; torchdistill's column is there if it is installed.

At some megabytes a tensor the C library may or may not give pages back after each use, which moves a ratio by a third: for steady numbers set
MALLOC_MMAP_THRESHOLD_=4000000000 and MALLOC_TRIM_THRESHOLD_=8000000000 in the environment.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace as Inputs
from typing import Any

import torch
from loss_cases import CASES, SIZES, inputs
from torch import Tensor

from instil import catalogue

Run = Callable[[], Tensor]
TURN = 0.05
"""A turn takes at least about so many seconds, of as many passes as that needs."""


def function(name: str) -> Callable[..., Tensor]:
    """A plain loss function by its name."""
    found: Callable[..., Tensor] = getattr(importlib.import_module(catalogue.losses()[name]), name)
    return found


def formulations(name: str, given: Inputs) -> dict[str, Run]:
    """What is compared: ``ours``, and ``torchdistill`` and ``plain`` where there is one."""
    case = CASES[name]
    found: dict[str, Run] = {"ours": lambda: case.ours(function(name.split()[0]), given)}
    if case.torchdistill is not None:
        try:
            theirs = case.torchdistill(
                importlib.import_module("torchdistill.losses.mid_level"), given
            )
        except ImportError:
            pass
        else:
            found["torchdistill"] = theirs
    if case.plain is not None:
        plain = case.plain
        found["plain"] = lambda: plain(given)
    return found


def gradients(run: Run, given: Inputs) -> tuple[Tensor, list[Tensor], tuple[Tensor | None, ...]]:
    """The loss, the inputs that want a gradient, and theirs; None for what the loss does not read."""
    wanted = [
        value for value in vars(given).values() if isinstance(value, Tensor) and value.requires_grad
    ]
    loss = run()
    return loss.detach(), wanted, torch.autograd.grad(loss, wanted, allow_unused=True)


def gradient(run: Run, given: Inputs) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The loss, and its gradient for all inputs that want one (zeros where the loss does not read them)."""
    loss, wanted, found = gradients(run, given)
    return loss, tuple(
        torch.zeros_like(value) if one is None else one
        for value, one in zip(wanted, found, strict=True)
    )


def seconds(run: Run, given: Inputs, times: int = 1) -> float:
    """Of one forward and backward pass, the mean over some; of many, the first is not timed: it finds the memory as another left it."""
    on_gpu = given.student.device.type == "cuda"
    clock = time.perf_counter if on_gpu else time.process_time
    wait = torch.cuda.synchronize if on_gpu else lambda: None
    if times > 1:
        gradients(run, given)
    wait()
    began = clock()
    for _ in range(times):
        gradients(run, given)
    wait()
    return (clock() - began) / times


def most_memory(run: Run, given: Inputs) -> float:
    """MiB that forward and backward hold at most, beyond what is there before."""
    if given.student.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        gradients(run, given)
        return float(torch.cuda.max_memory_allocated() - before) / 2**20
    with torch.autograd.profiler.profile(profile_memory=True) as profile:
        gradients(run, given)
    events = sorted(
        (event.start_ns(), event.nbytes())
        for event in profile.kineto_results.events()
        if event.name() == "[memory]"
    )
    held = most = 0
    for _, change in events:
        held += change
        most = max(most, held)
    return most / 2**20


def measure(
    names: list[str], rounds: int, sizes: dict[str, dict[str, Any]], device: str = "cpu"
) -> Iterator[dict[str, Any]]:
    """A row for each case and size: what, how large, milliseconds, ratios, MiB."""
    for name in names:
        for kind in CASES[name].kinds:
            given = inputs(kind, sizes[kind], device)
            runs = formulations(name, given)
            warm = max(seconds(run, given) for run in runs.values())
            times = max(1, round(TURN / max(warm, 1e-5)))
            taken: dict[str, list[float]] = {which: [] for which in runs}
            for turn in range(rounds):
                for which in sorted(runs, reverse=turn % 2 == 1):
                    taken[which].append(seconds(runs[which], given, times))
            row = {
                "loss": name,
                "size": given.size,
                "ms": round(1000 * statistics.median(taken["ours"]), 2),
            }
            for which in ("torchdistill", "plain"):
                pairs = zip(taken["ours"], taken.get(which, []), strict=False)
                row[which] = (
                    round(statistics.median(ours / theirs for ours, theirs in pairs), 2)
                    if which in runs
                    else None
                )
            for which in ("ours", "plain"):
                row[f"MiB_{which}"] = (
                    round(most_memory(runs[which], given), 1) if which in runs else None
                )
            yield row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="parts of the loss functions' names")
    parser.add_argument("--json", action="store_true", help="print one object and nothing else")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each formulation")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    names = [
        name for name in CASES if not options.names or any(part in name for part in options.names)
    ]
    rows = measure(names, options.rounds, SIZES, options.device)
    left_out = sorted(set(catalogue.losses()) - {name.split()[0] for name in CASES})
    if options.json:
        about = {
            "device": options.device,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "rounds": options.rounds,
        }
        print(json.dumps(about | {"rows": list(rows), "not_measured": left_out}))
        return
    print(
        f"{'loss':34} {'size':22} {'ms':>9} {'to torchdistill':>16} {'to plain':>9} {'MiB':>8} {'plain MiB':>10}"
    )
    for row in rows:
        shown = {key: "" if value is None else value for key, value in row.items()}
        print(
            "{loss:34} {size:22} {ms:9} {torchdistill:>16} {plain:>9} {MiB_ours:>8} {MiB_plain:>10}".format(
                **shown
            ),
            flush=True,
        )
    if left_out:
        print(f"Not measured: {', '.join(left_out)}")


if __name__ == "__main__":
    main()
