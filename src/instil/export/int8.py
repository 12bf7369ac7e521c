"""An ONNX file in 8 bits: weights per channel, activations by calibration."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from instil.core import Batch
from instil.export.session import Session, arrays
from instil.files.atomic import atomic

OPERATIONS = ["Conv", "Gemm", "MatMul"]
"""Where the arithmetic is; the rest (norms, gates, sums) loses accuracy in int8 and gains no time."""


class Inputs:
    """Hands onnxruntime one calibration batch after the other."""

    def __init__(self, inputs: list[dict[str, Any]]):
        self.rest = iter(inputs)

    def get_next(self) -> dict[str, Any] | None:
        """The next batch as the graph's inputs, None after the last."""
        return next(self.rest, None)


def quantize(onnx_path: str | Path, batches: Iterable[Batch], path: str | Path) -> dict[str, Any]:
    """Write ``path``: ``onnx_path`` with static int8 weights and activations (QDQ), ranges taken from ``batches`` of training samples.

    Returns ``file`` and ``bytes``. Raises ImportError without the extra ``export``, ValueError without a batch or without the ONNX file.
    """
    try:
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_static  # type: ignore[import-untyped, unused-ignore]
        from onnxruntime.quantization.shape_inference import quant_pre_process  # type: ignore[import-untyped, unused-ignore]
    except ImportError as error:
        raise ImportError(
            'quantizing needs onnx and onnxruntime: pip install "instil[export]"'
        ) from error
    if not Path(onnx_path).is_file():
        raise ValueError(f"there is no ONNX file {onnx_path} to quantize; export the student first")
    names = Session(onnx_path).names
    inputs = [arrays(batch, names) for batch in batches]
    if not inputs:
        raise ValueError(
            "quantizing needs at least one batch of training samples, to learn the ranges of the activations"
        )

    with atomic(path) as temporary, tempfile.TemporaryDirectory(dir=Path(path).parent) as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(onnx_path), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(temporary),
            Inputs(inputs),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=OPERATIONS,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
        )
    return {"file": Path(path).name, "bytes": Path(path).stat().st_size}
