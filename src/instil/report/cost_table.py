"""Table of size, speed and training time."""

from __future__ import annotations

from instil.report.quantities import count, duration, milliseconds, size
from instil.report.record import Record
from instil.report.tables import Cell, table

EXPORTS = {
    "onnx": "Student, ONNX",
    "int8": "Student, ONNX int8",
    "transformers": "Student, transformers",
    "gguf": "Student, GGUF",
}
Path = tuple[str, str]


def cost_table(record: Record) -> str:
    """Parameters, bytes, latency and training time of each network and exported file.

    The row ``Student`` holds for all students, except those of a different size, which have a row
    of their own.
    """
    networks = _networks(record)
    if not networks:
        return "<p>The cost was not measured.</p>"
    conditions = {
        _conditions(record, path)
        for _, path, _ in networks
        if record.get_number(*path, "latency", "median_ms") is not None
    }
    # Conditions that all networks share stand in the caption, others in each row.
    is_shared = len(conditions) == 1
    caption = "Size, speed and training time; latency is the median"
    if is_shared:
        caption += f", {conditions.pop()}"
    rows = []
    for name, path, _ in networks:
        rows.append(_row(record, name, path, "" if is_shared else _conditions(record, path)))
    header = ["Network", "Parameters", "Size", "Latency", "Training"]
    return table(caption, header, rows, [record.arm_color(arm) for _, _, arm in networks])


def _networks(record: Record) -> list[tuple[str, Path, str]]:
    """Name, path of the cost in the result, and arm that gives the colour."""
    networks: list[tuple[str, Path, str]] = [
        ("Teacher", ("cost", "teacher"), "teacher"),
        ("Student", ("cost", "student"), record.exported_arm),
    ]
    for arm in record.arms:
        if arm != "teacher" and record.cost_path(arm) == ("cost", arm):
            networks.append((record.arm_name(arm), ("cost", arm), arm))
    networks += [(name, ("export", key), record.exported_arm) for key, name in EXPORTS.items()]
    return [network for network in networks if isinstance(record.get(*network[1]), dict)]


def _conditions(record: Record, path: Path) -> str:
    """Batch size and threads of a measured latency."""
    batch_size = record.get_number(*path, "latency", "batch_size")
    threads = record.get_number(*path, "latency", "threads")
    parts = []
    if batch_size is not None:
        parts.append(f"batch size {batch_size:.0f}")
    if threads is not None:
        parts.append(f"{threads:.0f} thread{'s' if threads != 1 else ''}")
    return ", ".join(parts)


def _row(record: Record, name: str, path: Path, conditions: str) -> list[Cell]:
    parameters = record.get_number(*path, "parameters")
    if not parameters and path[0] == "export":
        parameters = record.get_number("cost", "student", "parameters")
    p90 = record.get_number(*path, "latency", "p90_ms")
    notes = ["" if p90 is None else f"90th percentile {milliseconds(p90)}", conditions]
    latency = milliseconds(record.get_number(*path, "latency", "median_ms"))
    return [
        name,
        count(parameters or None),
        size(record.get_number(*path, "bytes")),
        (latency, ", ".join(note for note in notes if note)),
        duration(record.get_number(*path, "seconds")),
    ]
