"""Memory of an inference with one sample: weights, and the largest tensors of one operation."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from instil.core import Batch, side_effect_free
from instil.export.latency import resized
from instil.export.session import to_arrays


def session_memory(path: Path, batch: Batch) -> int:
    """Return the memory of an ONNX file, as profiled by ONNX Runtime.

    It is the size of the file, plus the largest sum of inputs and outputs of one operation of the
    optimised graph. Buffers that the runtime reserves are not part of it.

    Args:
        path: ONNX file.
        batch: samples; the first one is used.

    Returns:
        Bytes.
    """
    import onnxruntime  # type: ignore[import-untyped, unused-ignore]

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = f"{folder}/profile"
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        names = [value.name for value in session.get_inputs()]
        session.run(None, to_arrays(resized(batch, 1), names))
        profile = Path(session.end_profiling()).read_text(encoding="utf-8")
    tensors = [
        int(event["args"]["activation_size"]) + int(event["args"]["output_size"])
        for event in json.loads(profile)
        if "output_size" in event.get("args", {})
    ]
    return path.stat().st_size + max(tensors, default=0)


def module_memory(net: nn.Module, batch: Batch) -> int:
    """Return the memory of a network in PyTorch.

    It is the size of the weights and buffers, plus the largest sum of inputs and outputs of one
    layer.

    Args:
        net: the network.
        batch: one sample.

    Returns:
        Bytes.
    """
    largest = 0

    def observe(layer: nn.Module, inputs: Any, outputs: Any) -> None:
        nonlocal largest
        largest = max(largest, _num_bytes(inputs) + _num_bytes(outputs))

    layers = [layer for layer in net.modules() if not any(layer.children())]
    handles: list[Any] = [layer.register_forward_hook(observe) for layer in layers]
    forward: Callable[[Batch], Any] = net
    try:
        with torch.no_grad(), side_effect_free(net):
            forward(batch)
    finally:
        for handle in handles:
            handle.remove()
    return _num_bytes(list(net.state_dict().values())) + largest


def _num_bytes(value: Any) -> int:
    """Return the size of all tensors in tuples, lists and mappings."""
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, dict):
        value = list(value.values())
    return sum(map(_num_bytes, value)) if isinstance(value, (list, tuple)) else 0
