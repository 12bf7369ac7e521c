"""ONNX graph of an estimator, with logits as its output."""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from instil.functional.log_probabilities import FLOOR
from instil.networks.sklearn_model import SklearnModel

OPSET = 18
"""Version of the operators of graphs whose converter does not set one."""
TYPES = {
    "skl2onnx": "skl2onnx.common.data_types",
    "onnxmltools": "onnxmltools.convert.common.data_types",
}
"""Modules with the types of inputs, by converter."""
MAX_REASON = 200
"""Number of characters of a converter's error in a message."""


def write_estimator(model: SklearnModel, num_features: int, name: str, path: Path) -> None:
    """Write the graph of a fitted estimator.

    Estimators of scikit-learn are converted by skl2onnx, those of LightGBM and XGBoost by
    onnxmltools.

    Args:
        model: fitted estimator.
        num_features: number of columns of a row.
        name: name of the input, float32 (N, ``num_features``).
        path: file to write. The output is ``logits``, float32 (N, C).

    Raises:
        ImportError: if the converter is not installed.
        ValueError: if the estimator cannot be converted.
    """
    import onnx

    estimator = model.fitted_estimator()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            converted = _convert(estimator, num_features, name)
    except ImportError:
        raise
    except Exception as error:  # converters raise errors of many classes
        reason = str(error).strip().partition("\n")[0][:MAX_REASON]
        raise ValueError(f"{type(estimator).__name__} cannot be converted: {reason}") from error
    onnx.save(_with_logits(converted, model), str(path))


def _convert(estimator: Any, num_features: int, name: str) -> Any:
    """Graph of the library that belongs to the estimator."""
    from sklearn.base import is_regressor  # type: ignore[import-untyped]

    library = type(estimator).__module__.partition(".")[0]
    package = "skl2onnx" if library == "sklearn" else "onnxmltools"
    try:
        converter: Any = importlib.import_module(package)
        types = importlib.import_module(TYPES[package])
    except ImportError as error:
        raise ImportError(
            f"exporting {type(estimator).__name__} to ONNX needs the package {package}: "
            'pip install "instil[trees]"'
        ) from error
    inputs = [(name, types.FloatTensorType([None, num_features]))]
    if library == "xgboost":
        return converter.convert_xgboost(estimator, initial_types=inputs)
    if library == "lightgbm":
        return converter.convert_lightgbm(estimator, initial_types=inputs, zipmap=False)
    # By default, probabilities are one dictionary per row.
    options = {} if is_regressor(estimator) else {id(estimator): {"zipmap": False}}
    versions = {"": OPSET, "ai.onnx.ml": 3}
    return converter.convert_sklearn(
        estimator, initial_types=inputs, options=options, target_opset=versions
    )


def _with_logits(converted: Any, model: SklearnModel) -> Any:
    """Graph whose only output are the logits of ``model``."""
    from onnx import TensorProto, helper, numpy_helper

    graph = converted.graph
    source = graph.output[-1].name
    nodes: list[Any] = []
    constants: list[Any] = []

    def add(operator: str, constant: Any, target: str) -> None:
        nonlocal source
        constants.append(numpy_helper.from_array(constant, f"{target}_constant"))
        nodes.append(helper.make_node(operator, [source, f"{target}_constant"], [target]))
        source = target

    if model.predicts_numbers:
        add("Reshape", np.array([-1, model.outputs], dtype=np.int64), "logits")
    else:
        # A class without a training row has no column in the probabilities of the estimator.
        classes = model.fitted_estimator().classes_
        columns = np.zeros((len(classes), model.outputs), dtype=np.float32)
        columns[np.arange(len(classes)), classes] = 1.0
        add("MatMul", columns, "by_class")
        add("Max", np.array(FLOOR, dtype=np.float32), "positive")
        nodes.append(helper.make_node("Log", [source], ["logits"]))
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [None, model.outputs])
    versions = {entry.domain: entry.version for entry in converted.opset_import}
    versions.setdefault("", OPSET)
    return helper.make_model(
        helper.make_graph(
            [*graph.node, *nodes],
            "estimator",
            list(graph.input),
            [output],
            [*graph.initializer, *constants],
        ),
        opset_imports=[helper.make_opsetid(*entry) for entry in versions.items()],
        ir_version=max(converted.ir_version, 8),
        producer_name="instil",
    )
