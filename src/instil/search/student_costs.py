"""Size and latency of a student on this machine, as it is exported."""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path
from typing import Any

import torch

from instil.core import Batch, Net
from instil.experiment.experiment import Experiment
from instil.export.latency import measure
from instil.export.memory import module_memory, session_memory
from instil.plan.evaluation import Evaluator
from instil.plan.onnx_export import write_graphs, write_int8
from instil.tasks.bases.exported_part import ExportsParts

RUNTIME_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def num_parameters(net: torch.nn.Module) -> int:
    """Return the number of parameters of a network."""
    return sum(parameter.numel() for parameter in net.parameters())


def exports_onnx(experiment: Experiment) -> bool:
    """Whether students of a recipe are one ONNX file, and the packages for it are installed."""
    task = experiment.task
    has_packages = all(importlib.util.find_spec(name) for name in RUNTIME_PACKAGES)
    # The objects of a detector without training have equal scores, whose order is undefined.
    is_one_graph = not isinstance(task, ExportsParts) and not task.object_outputs
    return bool(task.exports) and has_packages and is_one_graph


def measure_student(experiment: Experiment, net: Net) -> dict[str, Any]:
    """Measure a student, which need not be trained.

    Args:
        experiment: experiment of the recipe.
        net: the student.

    Returns:
        ``parameters``, ``bytes`` (of the file), ``latency_ms`` (median time of one sample),
        ``memory_bytes`` (of one sample, see ``instil.export.memory``), ``runtime`` and ``int8``.
        The runtime is ``onnxruntime`` with the exported file, or ``torch`` with the weights where
        the task has no single ONNX file. ``int8`` has bytes, latency and memory of the quantised
        file; None where it cannot be written.

    Raises:
        ValueError: if the student cannot be exported.
        RuntimeError: if the outputs of the file differ from those of the student.
    """
    costs: dict[str, Any] = {"parameters": num_parameters(net)}
    batch = next(iter(experiment.loader(experiment.splits.validation, shuffle=False)))
    if not exports_onnx(experiment):
        tensors = net.state_dict().values()
        costs["bytes"] = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        sample = experiment.splits.validation.__getitems__([0])
        latency = measure(net.cpu(), sample, keep_rows=True)
        costs |= {"latency_ms": latency["median_ms"], "memory_bytes": module_memory(net, sample)}
        return costs | {"runtime": "torch", "int8": None}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = write_graphs(folder, experiment, net, batch, int8=False)
        example, roles = experiment.task.export_example(net, batch)
        costs |= _file_costs(folder, files["onnx"], example, roles)
        try:
            facts = write_int8(folder, experiment, net)
            int8 = _file_costs(folder, facts, example, roles)
        # onnxruntime raises errors of many classes for operations without an int8 kernel.
        except Exception:
            int8 = None
    return costs | {"runtime": "onnxruntime", "int8": int8}


def _file_costs(
    folder: Path, facts: dict[str, Any], example: Batch, roles: tuple[str, ...]
) -> dict[str, Any]:
    from instil.export.session import Session

    session = Session(folder / facts["file"], roles)
    return {
        "bytes": facts["bytes"],
        "latency_ms": measure(session, example)["median_ms"],
        "memory_bytes": session_memory(folder / facts["file"], example),
    }


def evaluate_int8(experiment: Experiment, net: Net) -> dict[str, dict[str, float]] | None:
    """Quantise a trained student and return its metrics on validation and test data.

    Args:
        experiment: experiment of the recipe with its test split.
        net: the trained student.

    Returns:
        Metrics by split; None if the student cannot be quantised, or if the headline is that of an
        attack: exported files have no gradients.
    """
    from instil.export.session import Session

    evaluator = Evaluator(experiment)
    if experiment.task.headline in evaluator.perturbations:
        return None
    batch = next(iter(experiment.loader(experiment.splits.validation, shuffle=False)))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            files = write_graphs(folder, experiment, net, batch, int8=True)
            _, roles = experiment.task.export_example(net, batch)
            session = Session(folder / files["int8"]["file"], roles)
        # A trained student must not be lost: its other file is evaluated all the same.
        except Exception:
            return None
        exported = Net(session, experiment.task.call_exported)
        return {split: evaluator.evaluate(exported, split)[0] for split in ("validation", "test")}
