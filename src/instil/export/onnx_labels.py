"""Names of the axes of an ONNX file, and metadata on its inputs and outputs."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from instil.core import Net

IMAGE_AXES = ("batch", "channels", "height", "width")


def describe(
    net: Net, task: str, classes: Sequence[str], shape: Sequence[int], inputs: Sequence[str]
) -> dict[str, str]:
    """Return the metadata of an ONNX file. Values other than text are JSON.

    Args:
        net: student; its call may hold ``size``, ``mean`` and ``std``.
        task: name of the task.
        classes: class names in the order of the logits.
        shape: shape of the first input of one sample.
        inputs: names of the inputs.

    Returns:
        ``instil_version``, ``task``, ``classes``, ``input_shape`` (of an image: channels, height,
        width) and, for images, ``input_range`` and ``normalisation``, which is part of the graph.
    """
    facts: dict[str, Any] = {"classes": list(classes), "input_shape": list(shape)}
    if "image" in inputs:
        options = getattr(net.call, "keywords", {})
        facts["input_range"] = [0.0, 1.0]
        facts["normalisation"] = {
            "where": "inside the graph",
            **{key: options[key] for key in ("size", "mean", "std") if key in options},
        }
    texts = {key: json.dumps(value, ensure_ascii=False) for key, value in facts.items()}
    return {"instil_version": version("instil"), "task": task, **texts}


def label_file(path: Path, metadata: Mapping[str, str]) -> None:
    """Write metadata into an ONNX file and name its free axes ``batch``, ``height`` and so on.

    The exporter names a free axis after its symbol, such as ``s21``.

    Args:
        path: ONNX file, which is replaced.
        metadata: entries of ``metadata_props``.
    """
    import onnx

    model = onnx.load(str(path))
    _rename_axes(model)
    for key, value in metadata.items():
        entry = model.metadata_props.add()
        entry.key = key
        entry.value = value
    onnx.save(model, str(path))


def _rename_axes(model: Any) -> None:
    names: dict[str, str] = {}
    for value in model.graph.input:
        axes = IMAGE_AXES if value.name == "image" else ("batch",)
        for axis, dimension in zip(axes, value.type.tensor_type.shape.dim, strict=False):
            if dimension.dim_param:
                names.setdefault(dimension.dim_param, axis)
    if not names:
        return
    symbol = re.compile(rf"\b({'|'.join(map(re.escape, names))})\b")
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param:
                # A symbol may be part of an expression, such as "2*s21".
                dimension.dim_param = symbol.sub(lambda match: names[match[0]], dimension.dim_param)
