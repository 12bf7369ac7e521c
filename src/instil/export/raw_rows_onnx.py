"""ONNX file of a student of table rows that reads raw columns."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instil.data.raw_rows import RawRows
from instil.data.table_encoder import OTHER, Feature, category_text
from instil.files.atomic import atomic

OUTPUTS = {"single": "probabilities", "real": "values"}
"""Output of the file by kind of labels; ``probabilities`` for others."""
PREFIX = "student/"
"""Prefix of the tensors of the student in the joined graph."""
MIN_OPSET = 9
"""Version of the operators that encode columns."""
TOLERANCE = 1e-4
"""Largest difference between the outputs of both files, as a share of the largest value."""


def write_raw_rows(
    encoded: Path, rows: RawRows, kind: str, path: Path, metadata: Mapping[str, str]
) -> dict[str, Any]:
    """Write a graph from raw columns to probabilities, or to numbers in the unit of the label.

    Each column is an input (N, 1) with its own name: float64 for numbers, NaN if missing; text for
    categories, ``""`` if missing.

    Args:
        encoded: ONNX file of the student, from encoded rows to ``logits``.
        rows: encoder of the rows.
        kind: kind of the labels.
        path: file to write.
        metadata: stored in the file as ``metadata_props``.

    Returns:
        ``file``, ``bytes`` and ``max_difference`` (from the encoder and the other file).

    Raises:
        ImportError: without the extra ``export``.
        RuntimeError: if the outputs differ.
    """
    import onnx

    with atomic(path) as temporary:
        model = _joined(onnx.load(str(encoded)), rows, kind)
        for key, value in metadata.items():
            entry = model.metadata_props.add()
            entry.key = key
            entry.value = value
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, str(temporary))
        difference = _difference(encoded, rows, kind, temporary)
    return {"file": path.name, "bytes": path.stat().st_size, "max_difference": difference}


def _joined(model: Any, rows: RawRows, kind: str) -> Any:
    """Graph of the encoder and of the student."""
    from onnx import TensorProto, compose, helper

    # A column may have the name of a tensor of the student.
    model = compose.add_prefix(model, PREFIX)
    graph = model.graph
    logits = graph.output[0].name
    builder = _Builder(graph.input[0].name)
    inputs = []
    for index, feature in enumerate(rows.encoder.features):
        is_number = feature.categories is None
        dtype = TensorProto.DOUBLE if is_number else TensorProto.STRING
        inputs.append(helper.make_tensor_value_info(feature.name, dtype, ["batch", 1]))
        if is_number:
            builder.add_number(feature, f"raw_{index}")
        else:
            builder.add_category(feature, f"raw_{index}")
    builder.node("Concat", builder.encodings, builder.target, axis=1)
    before = builder.nodes
    builder.nodes = []
    name = builder.add_output(logits, rows, kind)
    width = graph.output[0].type.tensor_type.shape.dim[-1].dim_value
    output = helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width])
    versions = {entry.domain: entry.version for entry in model.opset_import}
    versions[""] = max(versions.get("", MIN_OPSET), MIN_OPSET)
    versions.setdefault("ai.onnx.ml", 1)
    return helper.make_model(
        helper.make_graph(
            [*before, *graph.node, *builder.nodes],
            "raw_rows",
            inputs,
            [output],
            [*graph.initializer, *builder.constants],
        ),
        opset_imports=[helper.make_opsetid(*entry) for entry in versions.items()],
        ir_version=model.ir_version,
        functions=list(model.functions),
        producer_name="instil",
    )


class _Builder:
    """Nodes and constants of the encoder.

    Only operators are used that are the same in all versions from ``MIN_OPSET`` on, because the
    graph of the student decides the version.
    """

    def __init__(self, target: str) -> None:
        self.target = target
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.encodings: list[str] = []

    def node(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def constant(self, name: str, value: NDArray[Any]) -> str:
        from onnx import numpy_helper

        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def add_number(self, feature: Feature, name: str) -> None:
        """Standardize a column; missing values are the mean, and marked in a second column."""
        from onnx import TensorProto

        mean = self.constant(f"{name}_mean", np.array(feature.mean, dtype=np.float64))
        std = self.constant(f"{name}_std", np.array(feature.std, dtype=np.float64))
        zero = self.constant(f"{name}_zero", np.array(0.0, dtype=np.float64))
        missing = self.node("IsNaN", [feature.name], f"{name}_missing")
        centred = self.node("Sub", [feature.name, mean], f"{name}_centred")
        scaled = self.node("Div", [centred, std], f"{name}_scaled")
        filled = self.node("Where", [missing, zero, scaled], f"{name}_filled")
        value = self.node("Cast", [filled], f"{name}_value", to=TensorProto.FLOAT)
        self.encodings.append(value)
        if feature.width == 2:
            mark = self.node("Cast", [missing], f"{name}_mark", to=TensorProto.FLOAT)
            self.encodings.append(mark)

    def add_output(self, logits: str, rows: RawRows, kind: str) -> str:
        """Add probabilities, or numbers in the unit of the label; return the name."""
        name = OUTPUTS.get(kind, "probabilities")
        if kind == "real":
            std = self.constant("raw_std", rows.std.numpy())
            scaled = self.node("Mul", [logits, std], "raw_scaled")
            mean = self.constant("raw_mean", rows.mean.numpy())
            return self.node("Add", [scaled, mean], name)
        if kind == "single":
            return self.node("Softmax", [logits], name, axis=1)
        return self.node("Sigmoid", [logits], name)

    def add_category(self, feature: Feature, name: str) -> None:
        """Encode a column as one column per category; others are ``other``, or 0 everywhere."""
        from onnx import helper

        categories = list(feature.categories or ())
        width = len(categories)
        one_hot = helper.make_node(
            "OneHotEncoder",
            [feature.name],
            [f"{name}_cube"],
            domain="ai.onnx.ml",
            cats_strings=categories,
            zeros=1,
        )
        self.nodes.append(one_hot)
        shape = self.constant(f"{name}_shape", np.array([-1, width], dtype=np.int64))
        encoding = self.node("Reshape", [f"{name}_cube", shape], f"{name}_known")
        if OTHER in categories:
            ones = self.constant(f"{name}_ones", np.ones((width, 1), dtype=np.float32))
            one = self.constant(f"{name}_one", np.array(1.0, dtype=np.float32))
            column = np.zeros((1, width), dtype=np.float32)
            column[0, categories.index(OTHER)] = 1.0
            other = self.constant(f"{name}_other", column)
            is_known = self.node("MatMul", [encoding, ones], f"{name}_is_known")
            is_other = self.node("Sub", [one, is_known], f"{name}_is_other")
            rest = self.node("MatMul", [is_other, other], f"{name}_rest")
            encoding = self.node("Add", [encoding, rest], f"{name}_encoding")
        self.encodings.append(encoding)


def _difference(encoded: Path, rows: RawRows, kind: str, path: Path) -> float:
    """Compare both files on rows with all categories, unknown ones and missing values."""
    import torch

    from instil.export.session import Session

    table = _example(rows)
    session = Session(encoded)
    logits = session({session.names[0]: rows.encoder.encode(table)})["logits"]
    expected = logits.softmax(1) if kind == "single" else logits.sigmoid()
    if kind == "real":
        expected = rows.restore(logits)
    outputs = Session(path, None).session.run(None, raw_inputs(rows, table))
    difference: float = (torch.from_numpy(outputs[0]) - expected).abs().max().item()
    largest = expected.abs().max().item()
    # The negated comparison is also true for NaN.
    if not difference <= TOLERANCE * max(largest, 1e-6):
        raise RuntimeError(
            "the outputs for raw columns differ from those for encoded rows. Expected at most "
            f"{TOLERANCE:g} of the largest value, {largest:.4g}, got a difference of "
            f"{difference:.3g}"
        )
    return difference


def raw_inputs(rows: RawRows, table: Mapping[str, list[Any]]) -> dict[str, NDArray[Any]]:
    """Return the inputs of the graph for the columns of a table.

    Args:
        rows: encoder of the rows.
        table: values by column; None for missing ones.
    """
    inputs: dict[str, NDArray[Any]] = {}
    for feature in rows.encoder.features:
        values = table[feature.name]
        if feature.categories is None:
            numbers = [np.nan if value is None else value for value in values]
            inputs[feature.name] = np.array(numbers, dtype=np.float64)[:, None]
        else:
            texts = [category_text(value) for value in values]
            inputs[feature.name] = np.array(texts, dtype=object)[:, None]
    return inputs


def _example(rows: RawRows) -> dict[str, list[Any]]:
    """Rows with values around the mean and every category, unknown and missing ones included."""
    features = rows.encoder.features
    size = 4 + max((len(feature.categories or ()) for feature in features), default=0)
    steps = np.linspace(-2.0, 2.0, size - 1)
    table: dict[str, list[Any]] = {}
    for feature in features:
        if feature.categories is None:
            table[feature.name] = [*(feature.mean + feature.std * steps).tolist(), None]
        else:
            values = [*feature.categories, "a value that no table has", None]
            table[feature.name] = (values * size)[:size]
    return table
