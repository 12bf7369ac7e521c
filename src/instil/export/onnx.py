"""The student as one ONNX file, proven to give the same logits."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from instil.core import Batch, Net, batch_size
from instil.export.latency import resized
from instil.export.onnx_labels import label_file
from instil.export.session import Session, arrays
from instil.files.atomic import atomic

TOLERANCE = 1e-4
"""Largest difference between the two runtimes' logits, as a share of the largest logit."""


class _Graph(nn.Module):
    """What is exported: the task's inputs in, logits out, through the task's call."""

    def __init__(self, net: Net, names: Sequence[str]):
        super().__init__()
        self.model, self.call, self.names = net.model, net.call, tuple(names)

    def forward(self, *inputs: Tensor) -> Tensor:
        logits: Tensor = self.call(self.model, dict(zip(self.names, inputs, strict=True)))["logits"]
        return logits


def to_onnx(
    net: Net,
    batch: Batch,
    path: str | Path,
    names: Sequence[str] = ("image",),
    metadata: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Write a graph from the inputs ``names``, any number of rows, to ``logits``.

    Args:
        net: left as it is.
        batch: an example. An ``image`` is (N, C, H, W), float in [0, 1].
        path: of the ONNX file.
        names: keys of the batch that are the inputs of the graph.
        metadata: stored in the file as ``metadata_props``, such as that of ``describe``.

    Returns:
        ``file``, ``bytes`` and ``max_difference`` (of the logits between PyTorch and ONNX, over
        several batch sizes).

    Raises:
        ImportError: without the extra ``export``.
        ValueError: if the model cannot be exported.
        RuntimeError: if the logits differ.
    """
    path = Path(path)
    _needs_export()
    import onnx

    graph = _Graph(copy.deepcopy(net), names).cpu().float().eval()
    inputs = {name: torch.from_numpy(array) for name, array in arrays(batch, names).items()}
    with atomic(path) as temporary:
        _export(graph, resized(inputs, max(2, min(8, batch_size(inputs)))), temporary)
        label_file(temporary, metadata or {})
        onnx.checker.check_model(str(temporary), full_check=True)
        difference = _parity(graph, Session(temporary), inputs)
    return {"file": path.name, "bytes": path.stat().st_size, "max_difference": difference}


def _export(graph: _Graph, inputs: Batch, path: Path) -> None:
    try:
        with torch.no_grad():
            graph(*inputs.values())
    except KeyError as error:
        alone = " and ".join(f"'{name}'" for name in graph.names)
        raise ValueError(
            f"the student's call reads {error} of the batch, but the exported graph is given {alone} alone"
        ) from error
    shapes = (tuple({0: torch.export.Dim.DYNAMIC} for _ in inputs),)
    with _quiet(), torch.no_grad():
        try:
            program = torch.onnx.export(
                graph,
                tuple(inputs.values()),
                input_names=list(graph.names),
                output_names=["logits"],
                dynamic_shapes=shapes,
                dynamo=True,
                verbose=False,
            )
        except Exception as error:  # whatever the exporter and the tracer under it raise
            reason = str(error.__cause__ or error).strip().partition("\n")[0]
            raise ValueError(f"torch.onnx cannot export this student: {reason}") from error
        assert program is not None
        for node in program.model.graph:
            node.metadata_props.clear()  # traces of the source code, with the paths of this machine
        program.save(path, external_data=False)


def _parity(graph: _Graph, session: Session, inputs: Batch) -> float:
    worst = 0.0
    for n in (1, 2, 3, max(4, batch_size(inputs))):
        sample = resized(inputs, n)
        with torch.no_grad():
            expected = graph(*sample.values())
        found = session(sample)["logits"]
        if found.shape != expected.shape:
            raise RuntimeError(
                f"for {n} samples the ONNX file gives logits {tuple(found.shape)}, PyTorch {tuple(expected.shape)}"
            )
        difference, largest = (found - expected).abs().max().item(), expected.abs().max().item()
        if not difference <= TOLERANCE * max(largest, 1e-6):  # also where it is NaN
            allowed = f"{TOLERANCE:g} of the largest logit, {largest:.4g}, is allowed"
            raise RuntimeError(
                f"the ONNX file's logits differ from PyTorch's by {difference:.3g} at batch size {n}; {allowed}"
            )
        worst = max(worst, difference)
    return worst


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter's own notes: warnings raised in its modules, its progress lines, and the logs of some forty torch loggers."""
    disabled = logging.root.manager.disable
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        for module in (
            r"torch\.(onnx|export|fx|_|utils\._pytree)",
            r"onnxscript",
            r"onnx_ir",
            r"copyreg",
        ):
            warnings.filterwarnings("ignore", module=module)
        logging.disable(logging.ERROR)
        try:
            yield
        finally:
            logging.disable(disabled)


def _needs_export() -> None:
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(
            'exporting to ONNX needs onnx and onnxscript: pip install "instil[export]"'
        ) from error
