"""The folder that a run leaves: every file whole or not at all."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from instil.engine import rank
from instil.files.atomic import atomic
from instil.files.checksums import json_with_checksum, read_json_with_checksum

PACKAGES = (
    "instil",
    "torch",
    "numpy",
    "torchmetrics",
    "torchvision",
    "timm",
    "transformers",
    "onnx",
    "onnxruntime",
)

RESUME_REMEDY = "Restore it from a copy, or go on with the run (--resume), which writes it again"


class RunFolder:
    """``recipe.yaml``, ``environment.json``, ``metrics.jsonl``, ``result.json``, ``checkpoint/``; of several ranks only the first writes."""

    def __init__(self, path: Path):
        self.path = path
        self.on_log: Callable[[dict[str, Any]], None] = lambda record: None
        """Called with every record that is logged, on every rank."""

    def write(self, name: str, text: str) -> None:
        """Replace a text file."""
        if rank() == 0:
            with atomic(self.path / name) as temporary:
                temporary.write_text(text, encoding="utf-8")

    def write_json(self, name: str, value: dict[str, Any]) -> None:
        """Replace a JSON file of an object; it gets a checksum."""
        self.write(name, json_with_checksum(value))

    def read_json(self, name: str, remedy: str = RESUME_REMEDY) -> dict[str, Any] | None:
        """Read a JSON file and verify its checksum.

        Args:
            name: of the file.
            remedy: what the user can do about a damaged file, without a full stop.

        Returns:
            The object, or None if there is no such file.

        Raises:
            DamagedFileError: if the file is damaged.
        """
        path = self.path / name
        return read_json_with_checksum(path, remedy) if path.exists() else None

    def log(self, record: dict[str, Any]) -> None:
        """Append a line to ``metrics.jsonl``."""
        self.on_log(record)
        if rank() == 0:
            with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(record, ensure_ascii=False) + "\n")

    def remove_records(self, arm: str, seed: int | None) -> None:
        """Take an arm's lines out of ``metrics.jsonl``: it is trained anew, or logs again what a checkpoint remembers."""
        path = self.path / "metrics.jsonl"
        if path.exists():
            kept = [
                line
                for line in path.read_text(encoding="utf-8", errors="replace").splitlines()
                if _whose(line) not in (None, (arm, seed))
            ]
            self.write("metrics.jsonl", "".join(line + "\n" for line in kept))

    def arm_file(self, arm: str, seed: int | None, suffix: str) -> Path:
        """A file of one arm and seed in ``checkpoint/``."""
        return self.path / "checkpoint" / f"{arm}{'' if seed is None else f'-{seed}'}{suffix}"


def _whose(line: str) -> tuple[str, int | None] | None:
    """Arm and seed of a line; None of half a line, which a full disk or a killed run may leave."""
    try:
        record = json.loads(line)
        return record["arm"], record["seed"]
    except (ValueError, TypeError, KeyError):
        return None


def collect_environment(seeds: list[int]) -> dict[str, Any]:
    """Versions, hardware, seeds and the state of the git checkout, if there is one."""
    return {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
        "hardware": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
        "seeds": seeds,
        "git": _git(),
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(
            line.partition(":")[2].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _git() -> dict[str, Any] | None:
    def ask(*words: str) -> str:
        return subprocess.run(
            ["git", *words], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        return {
            "commit": ask("rev-parse", "HEAD"),
            "changed": bool(ask("status", "--porcelain", "--untracked-files=no")),
        }
    except (OSError, subprocess.SubprocessError):
        return None
