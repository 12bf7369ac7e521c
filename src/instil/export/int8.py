"""Quantisation of an ONNX file: 8-bit weights per channel, activations by calibration."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from instil.core import Batch
from instil.export.deployed_layers import MIDDLE
from instil.export.session import Session, to_arrays
from instil.files.atomic import atomic

OPERATIONS = ["Conv", "Gemm", "MatMul"]
"""Quantised operations.

They do most of the arithmetic. Norms, gates and sums lose accuracy in int8 and gain no time.
"""


class CalibrationReader:
    """Source of calibration batches for onnxruntime.

    Args:
        inputs: inputs of the graph for each batch.
    """

    def __init__(self, inputs: Iterable[dict[str, Any]]):
        self._iterator: Iterator[dict[str, Any]] = iter(inputs)

    def get_next(self) -> dict[str, Any] | None:
        """Return the inputs of the next batch; None after the last one."""
        return next(self._iterator, None)


def quantize(onnx_path: str | Path, batches: Iterable[Batch], path: str | Path) -> dict[str, Any]:
    """Write an ONNX file with static weights and activations of 8 bits (QDQ format).

    Args:
        onnx_path: ONNX file of the student.
        batches: training samples that give the ranges of the activations.
        path: file to write.

    Returns:
        ``file`` and ``bytes``.

    Raises:
        ImportError: without the extra ``export``.
        ValueError: without a batch or without the ONNX file.
    """
    try:
        from onnxruntime import quantization  # type: ignore[import-untyped, unused-ignore]
        from onnxruntime.quantization import (  # type: ignore[import-untyped, unused-ignore]
            shape_inference,
        )
    except ImportError as error:
        raise ImportError(
            'quantising needs onnx and onnxruntime: pip install "instil[export]"'
        ) from error
    path = Path(path)
    if not Path(onnx_path).is_file():
        raise ValueError(
            f"onnx_path: no such file. Expected an ONNX file, got {onnx_path}. Export the student "
            "first"
        )
    names = Session(onnx_path, None).names
    inputs = [to_arrays(batch, names) for batch in batches]
    if not inputs:
        raise ValueError(
            "batches: the ranges of the activations need samples. Expected at least one batch of "
            "training samples, got none"
        )
    with atomic(path) as temporary, tempfile.TemporaryDirectory(dir=path.parent) as folder:
        prepared = Path(folder) / "prepared.onnx"
        # Symbolic shapes are skipped: the free batch axis would make their inference fail.
        shape_inference.quant_pre_process(str(onnx_path), str(prepared), skip_symbolic_shape=True)
        quantization.quantize_static(
            str(prepared),
            str(temporary),
            CalibrationReader(inputs),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=OPERATIONS,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            # Only with signed weights, onnxruntime chooses steps for which no bias overflows.
            weight_type=quantization.QuantType.QInt8,
            extra_options={"WeightSymmetric": True},
        )
        _make_unsigned(temporary)
    return {"file": path.name, "bytes": path.stat().st_size}


def _make_unsigned(path: Path) -> None:
    """Replace weights of -128 to 127 by weights of 0 to 255 with the zero point 128, in place.

    Signed integers overflow in onnxruntime on processors with AVX2 and without VNNI.
    """
    import onnx
    from onnx import numpy_helper

    model = onnx.load(str(path))
    for tensor in model.graph.initializer:
        # The integers of weights, and their zero points.
        if tensor.data_type == onnx.TensorProto.INT8:
            values = (numpy_helper.to_array(tensor).astype(np.int16) + MIDDLE).astype(np.uint8)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(model, str(path))
