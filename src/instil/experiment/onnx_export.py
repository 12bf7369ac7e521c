"""Export of a student to ONNX, evaluated and timed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from instil.core import Batch, Net, Outputs
from instil.experiment.bench import Bench
from instil.experiment.folder import RunFolder

NUM_CALIBRATION_BATCHES = 8


def export_onnx(folder: RunFolder, bench: Bench, net: Net, int8: bool) -> None:
    """Write ``student.onnx``, and with ``int8`` also ``student.int8.onnx``.

    Metrics on the test split and latency of each file are added to the result.

    Raises:
        ValueError: if the task or the student has no ONNX form.
        ImportError: without the extra ``export``.
    """
    from instil.export.int8 import quantize
    from instil.export.latency import measure
    from instil.export.onnx import to_onnx
    from instil.export.onnx_labels import describe
    from instil.export.session import Session

    bench.task.check_export()
    batch = next(iter(bench.loader(bench.splits.validation, shuffle=False)))
    paths = {
        "onnx": folder.path / "student.onnx",
        "int8": folder.path / "student.int8.onnx",
    }
    inputs = bench.task.inputs
    about = describe(net, bench.recipe.task.name, bench.splits.classes, bench.shape, inputs)
    exports: dict[str, Any] = {"onnx": to_onnx(net, batch, paths["onnx"], inputs, about)}
    if int8:
        exports["int8"] = quantize(paths["onnx"], _calibration_batches(bench), paths["int8"])
    for name, export in exports.items():
        session = Session(paths[name])
        export |= evaluate_export(bench, Net(session, _call_session))
        export["latency"] = measure(session, batch)
    add_exports(folder, exports)


def evaluate_export(bench: Bench, net: Net) -> dict[str, Any]:
    """Return headline and secondary metrics of an exported student on the test split."""
    metrics, _ = bench.task.evaluate(net, bench.loader(bench.splits.test, shuffle=False))
    shown = (bench.task.headline, *bench.task.secondary)
    return {name: metrics[name] for name in shown if name in metrics}


def add_exports(folder: RunFolder, exports: dict[str, Any]) -> None:
    """Add facts about exported files to the result of a run."""
    result = folder.read_json("result.json") or {}
    folder.write_json("result.json", result | {"export": result.get("export", {}) | exports})


def _call_session(model: nn.Module, batch: Batch) -> Outputs:
    outputs: Outputs = model(batch)
    return outputs


def _calibration_batches(bench: Bench) -> Iterator[dict[str, Any]]:
    batches = bench.loader(bench.examples)
    for _, batch in zip(range(NUM_CALIBRATION_BATCHES), batches, strict=False):
        yield batch
