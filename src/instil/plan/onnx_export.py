"""Export of a student to ONNX, with metrics and latency of the exported files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from instil.core import Batch, Net
from instil.data.raw_rows import FACT, RawRows
from instil.experiment.experiment import Experiment
from instil.experiment.network_inputs import exported_student
from instil.export.deployed_layers import is_integer
from instil.networks.network_call import reads_of
from instil.networks.sklearn_model import SklearnModel
from instil.plan.run_folder import RunFolder
from instil.tasks.bases.exported_part import ExportedPart, ExportsParts

NUM_CALIBRATION_BATCHES = 8


def export_onnx(folder: RunFolder, experiment: Experiment, net: Net, int8: bool) -> None:
    """Write ``student.onnx``, and with ``int8`` also ``student.int8.onnx``.

    Test metrics and latency of each file are added to ``result.json``. A task that ``ExportsParts``
    writes one file per part instead, such as ``student.encoder.onnx``. A detector of any number of
    objects is not quantized.

    Args:
        folder: run folder to write to.
        experiment: experiment of the whole recipe.
        net: the student.
        int8: also write a quantized file.

    Raises:
        ValueError: if the task or the student cannot be exported to ONNX.
        ImportError: without the extra ``export``.
    """
    from instil.export.latency import measure
    from instil.export.session import Session

    task = experiment.task
    task.check_export()
    batch = next(iter(experiment.loader(experiment.splits.validation, shuffle=False)))
    if isinstance(task, ExportsParts):
        _export_parts(folder, experiment, task.export_parts(net, batch), int8)
        return
    if task.object_outputs:
        exports = {"onnx": _write_detector(folder.path, experiment, net, batch)}
        example, roles = batch, task.object_outputs
    else:
        # An estimator has no weights to quantize; integer layers are quantized in student.onnx.
        int8 = int8 and not isinstance(net.model, SklearnModel) and not is_integer(net)
        exports = write_graphs(folder.path, experiment, net, batch, int8)
        example, roles = task.export_example(net, batch)
    for export in exports.values():
        session = Session(folder.path / export["file"], roles)
        export |= evaluate_export(experiment, Net(session, task.call_exported))
        export["latency"] = measure(session, example)
    add_exports(folder, exports)
    facts = experiment.facts_for(exported_student(experiment.recipe))
    if isinstance(facts.get(FACT), str):
        _export_raw_rows(folder, experiment, net, RawRows.from_json(str(facts[FACT])))


def _write_detector(folder: Path, experiment: Experiment, net: Net, batch: Batch) -> dict[str, Any]:
    """Write ``student.onnx`` of a detector, which reads one image and returns its objects."""
    from instil.export.detector_onnx import detector_to_onnx
    from instil.export.onnx_labels import describe

    name = reads_of(net.call).get("image", "image")
    classes = experiment.splits.classes
    metadata = describe(net, experiment.recipe.task.name, classes, experiment.shape, ["image"])
    return detector_to_onnx(net, batch, folder / "student.onnx", name, metadata)


def _export_raw_rows(folder: RunFolder, experiment: Experiment, net: Net, rows: RawRows) -> None:
    """Write ``student.raw.onnx``, which reads the columns of a table instead of encoded rows."""
    from instil.export.onnx_labels import describe
    from instil.export.raw_rows_onnx import write_raw_rows

    names = [feature.name for feature in rows.encoder.features]
    classes = experiment.splits.classes
    metadata = describe(net, experiment.recipe.task.name, classes, experiment.shape, names)
    path = folder.path / "student.raw.onnx"
    source = folder.path / "student.onnx"
    facts = write_raw_rows(source, rows, experiment.task.kind, path, metadata)
    result = folder.read_json("result.json") or {}
    folder.write_json("result.json", result | {"export_raw": facts})


def write_graphs(
    folder: Path, experiment: Experiment, net: Net, batch: Batch, int8: bool
) -> dict[str, dict[str, Any]]:
    """Write ``student.onnx``, and with ``int8`` also ``student.int8.onnx``.

    Args:
        folder: folder of the files.
        experiment: experiment of the whole recipe, whose task does not export parts.
        net: the student.
        batch: validation samples.
        int8: also write a quantized file, calibrated on training samples.

    Returns:
        ``onnx`` and ``int8``, each with at least ``file`` and ``bytes``.

    Raises:
        ValueError: if the student cannot be exported to ONNX.
        ImportError: without the extra ``export``.
        RuntimeError: if the outputs of the file differ from those of the student.
    """
    from instil.export.onnx import to_onnx
    from instil.export.onnx_labels import describe

    path = folder / "student.onnx"
    task = experiment.task
    task_inputs = task.graph_inputs(net)
    example, roles = task.export_example(net, batch)
    metadata = describe(
        net, experiment.recipe.task.name, experiment.splits.classes, experiment.shape, task_inputs
    )
    metadata |= task.graph_metadata(net)
    # The graph has the keys of the data as inputs, which may differ from those of the task.
    reads = reads_of(net.call)
    inputs = [reads.get(key, key) for key in task_inputs]
    exports = {"onnx": to_onnx(net, example, path, inputs, metadata, roles)}
    if int8:
        exports["int8"] = write_int8(folder, experiment, net)
    return exports


def write_int8(folder: Path, experiment: Experiment, net: Net) -> dict[str, Any]:
    """Quantise ``student.onnx``, calibrated on training samples; return ``file`` and ``bytes``.

    Args:
        folder: folder of ``student.onnx``.
        experiment: experiment with the training samples.
        net: the student, whose inputs are calibrated.

    Raises:
        ValueError: if ``student.onnx`` has integer weights already.
    """
    from instil.export.int8 import quantize

    if is_integer(net):
        raise ValueError("int8: the student has learned steps, so student.onnx is int8 already")
    batches = _calibration_batches(experiment, net)
    return quantize(folder / "student.onnx", batches, folder / "student.int8.onnx")


def _export_parts(
    folder: RunFolder, experiment: Experiment, parts: Mapping[str, ExportedPart], int8: bool
) -> None:
    """Write one file per part; their facts are ``export_parts`` of ``result.json``."""
    from instil.export.latency import measure
    from instil.export.onnx import to_onnx
    from instil.export.onnx_labels import describe
    from instil.export.session import Session

    if int8:
        raise ValueError(
            f"export: a student of {experiment.task.title} is several graphs, which are not "
            "quantized. Expected export: onnx, got int8"
        )
    facts: dict[str, Any] = {}
    recipe = experiment.recipe
    classes = experiment.splits.classes
    for name, part in parts.items():
        path = folder.path / f"student.{name}.onnx"
        metadata = describe(part.net, recipe.task.name, classes, experiment.shape, part.inputs)
        facts[name] = to_onnx(part.net, part.batch, path, part.inputs, metadata, part.roles)
        facts[name]["latency"] = measure(Session(path, part.roles), part.batch)
    result = folder.read_json("result.json") or {}
    folder.write_json("result.json", result | {"export_parts": facts})


def evaluate_export(experiment: Experiment, net: Net) -> dict[str, Any]:
    """Compute headline and secondary metrics of an exported student on the test split."""
    metrics, _ = experiment.task.measure(
        net, experiment.loader(experiment.splits.test, shuffle=False)
    )
    names = (experiment.task.headline, *experiment.task.secondary)
    return {name: metrics[name] for name in names if name in metrics}


def add_exports(folder: RunFolder, exports: dict[str, Any]) -> None:
    """Add facts about exported files to ``result.json``, under the key ``export``."""
    result = folder.read_json("result.json") or {}
    folder.write_json("result.json", result | {"export": result.get("export", {}) | exports})


def _calibration_batches(experiment: Experiment, net: Net) -> Iterator[Batch]:
    batches = experiment.loader(experiment.visible_samples)
    for _, batch in zip(range(NUM_CALIBRATION_BATCHES), batches, strict=False):
        yield experiment.task.export_example(net, batch)[0]
