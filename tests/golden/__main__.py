"""``python -m tests.golden [DIR]``: compare the losses with the authors' numbers in DIR."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

from tests.golden.cases import HERE, Result, run

STATUSES = ("passed", "failed", "declined", "unknown")


def line(result: Result) -> str:
    """Format a case: status, error of the loss, errors of the gradients, reason of a failure."""
    loss = f"{result.errors['loss']:.1e}" if result.errors else "-"
    others = " ".join(
        f"{name}={error:.1e}" for name, error in result.errors.items() if name != "loss"
    )
    return (
        f"{result.case:36} {result.status:8} {loss:>8}  "
        f"{others}{'  ' if others and result.note else ''}{result.note}"
    )


def main(arguments: list[str]) -> int:
    """Print the table; return 1 if a case failed and 2 for a folder without cases."""
    folder = Path(arguments[0]) if arguments else HERE / "cases"
    if len(arguments) > 1 or not (folder / "index.json").is_file():
        print(
            "usage: python -m tests.golden [DIR]; DIR holds index.json and the .npz files "
            f"(there is none in {folder})",
            file=sys.stderr,
        )
        return 2
    counts: Counter[str] = Counter()
    print(f"{'case':36} {'status':8} {'loss':>8}  gradients")
    for result in run(folder):
        counts[result.status] += 1
        print(line(result))
    print(", ".join(f"{counts[status]} {status}" for status in STATUSES))
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
