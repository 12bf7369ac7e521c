"""Content of ``environment.json``: versions, hardware, seeds and git commit of a run."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import Any

import torch

from instil.plan.execution_facts import PLUGIN_GROUPS

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
GIT_TIMEOUT_SECONDS = 10


def collect_environment(seeds: list[int]) -> dict[str, Any]:
    """Collect versions, hardware, seeds and the state of the git checkout.

    Args:
        seeds: seeds of the run.

    Returns:
        A dictionary that can be written as JSON. ``versions`` lists installed packages
        only, and the packages whose entry points add methods.
        ``git`` is None outside of a repository.
    """
    versions = {name: _version(name) for name in PACKAGES}
    has_cuda = torch.cuda.is_available()
    return {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {name: text for name, text in versions.items() if text} | _plugin_versions(),
        "hardware": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "accelerator": torch.cuda.get_device_name() if has_cuda else None,
        },
        "seeds": seeds,
        "git": _git_state(),
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _plugin_versions() -> dict[str, str]:
    """Return the versions of the packages whose entry points add methods."""
    versions: dict[str, str] = {}
    for group in PLUGIN_GROUPS:
        packages = [entry.dist for entry in entry_points(group=group) if entry.dist is not None]
        versions |= {package.name: package.version for package in packages}
    return dict(sorted(versions.items()))


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    # The platform module has no model name on Linux.
    for line in lines:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _git_state() -> dict[str, Any] | None:
    try:
        return {
            "commit": _git("rev-parse", "HEAD"),
            "changed": bool(_git("status", "--porcelain", "--untracked-files=no")),
        }
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*arguments: str) -> str:
    """Output of a git command in the current folder."""
    return subprocess.run(
        ["git", *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=GIT_TIMEOUT_SECONDS,
    ).stdout.strip()
