"""Export of the student as one ONNX file, checked against PyTorch."""

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
from instil.export.deployed_layers import (
    fold_parametrizations,
    is_integer,
    with_integer_layers,
)
from instil.export.estimator_onnx import write_estimator
from instil.export.integer_operators import onnx_translations
from instil.export.latency import resized
from instil.export.onnx_labels import label_file
from instil.export.session import Session, to_arrays
from instil.files.atomic import atomic
from instil.networks.sklearn_model import SklearnModel

TOLERANCE = 1e-4
"""Largest difference between outputs of the two runtimes, as a share of the largest value."""
INTEGER_TOLERANCE = 0.1
"""The same for integer layers: a rounding error of float numbers may become a whole step."""
NOISY_MODULES = (
    r"torch\.(onnx|export|fx|_|utils\._pytree)",
    r"onnxscript",
    r"onnx_ir",
    r"copyreg",
)
"""Modules whose warnings concern the exporter itself."""
NOISY_MESSAGES = ("The tensor attributes .* were assigned during export", "_check_is_size")
"""Warnings about recurrent layers that the exporter handles, from modules without a name."""


class _Graph(nn.Module):
    """Function from inputs of the task to outputs by role, through the task's call."""

    def __init__(self, net: Net, names: Sequence[str], roles: Sequence[str]):
        super().__init__()
        # Only the taps of the graph's outputs are recorded.
        taps = {role: net.taps[role] for role in roles if role in net.taps}
        self.net = Net(net.model, net.call, taps)
        self.names = tuple(names)
        self.roles = tuple(roles)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        outputs = self.net(dict(zip(self.names, inputs, strict=True)))
        return tuple(outputs[role] for role in self.roles)


def to_onnx(
    net: Net,
    batch: Batch,
    path: str | Path,
    names: Sequence[str] = ("image",),
    metadata: Mapping[str, str] | None = None,
    roles: Sequence[str] = ("logits",),
) -> dict[str, Any]:
    """Write a graph from the inputs ``names``, with any number of rows, to the outputs ``roles``.

    Args:
        net: student; it is not changed.
        batch: an example. An ``image`` is (N, C, H, W), float in [0, 1].
        path: file to write.
        names: keys of the batch that are the inputs of the graph.
        metadata: stored in the file as ``metadata_props``, such as that of ``describe``.
        roles: outputs of the student, tensors, which are the outputs of the graph by name.

    Returns:
        ``file``, ``bytes`` and ``max_difference`` (of any output between PyTorch and ONNX, over
        several batch sizes).

    Raises:
        ImportError: without the extra ``export``.
        ValueError: if the model cannot be exported.
        RuntimeError: if the outputs differ.
    """
    path = Path(path)
    _check_packages()
    import onnx

    graph = _Graph(copy.deepcopy(net), names, roles).cpu().float().eval()
    fold_parametrizations(graph)
    tolerance = INTEGER_TOLERANCE if is_integer(graph) else TOLERANCE
    inputs = {name: torch.from_numpy(array) for name, array in to_arrays(batch, names).items()}
    with atomic(path) as temporary:
        # The exporter treats an axis of length 1 as fixed, so the example has two rows at least.
        example = resized(inputs, max(2, min(8, batch_size(inputs))))
        if isinstance(net.model, SklearnModel):
            (name,) = names
            write_estimator(net.model, example[name][0].numel(), name, temporary)
        else:
            _export(graph, example, temporary)
        label_file(temporary, metadata or {})
        onnx.checker.check_model(str(temporary), full_check=True)
        difference = _largest_difference(graph, Session(temporary, roles), inputs, tolerance)
    return {"file": path.name, "bytes": path.stat().st_size, "max_difference": difference}


def _export(graph: _Graph, inputs: Batch, path: Path) -> None:
    try:
        with torch.no_grad():
            outputs = graph.net(inputs)
    except KeyError as error:
        names = " and ".join(f"'{name}'" for name in graph.names)
        raise ValueError(
            f"the call of the student reads {error} of the batch. Expected a call that reads only "
            f"the inputs of the graph, {names}"
        ) from error
    for role in graph.roles:
        if not isinstance(outputs.get(role), Tensor):
            raise ValueError(
                f"roles: the student has no output '{role}' that is a tensor. Expected one of "
                f"{', '.join(outputs)}"
            )
    shapes = (tuple({0: torch.export.Dim.DYNAMIC} for _ in inputs),)
    with _quiet(), torch.no_grad():
        try:
            program = torch.onnx.export(
                with_integer_layers(graph),
                tuple(inputs.values()),
                input_names=list(graph.names),
                output_names=list(graph.roles),
                dynamic_shapes=shapes,
                dynamo=True,
                custom_translation_table=onnx_translations(),
                verbose=False,
            )
        # The exporter and the tracer below it raise errors of many classes.
        except Exception as error:
            reason = str(error.__cause__ or error).strip().partition("\n")[0]
            raise ValueError(f"torch.onnx cannot export this student: {reason}") from error
        assert program is not None
        # The metadata of a node are traces of the source code with paths of this machine.
        for node in program.model.graph:
            node.metadata_props.clear()
        program.save(path, external_data=False)


def _largest_difference(graph: _Graph, session: Session, inputs: Batch, tolerance: float) -> float:
    """Compare the outputs of PyTorch and ONNX at several batch sizes."""
    largest_difference = 0.0
    for num_samples in (1, 2, 3, max(4, batch_size(inputs))):
        sample = resized(inputs, num_samples)
        with torch.no_grad():
            expected = dict(zip(graph.roles, graph(*sample.values()), strict=True))
        outputs = session(sample)
        for role, value in expected.items():
            difference = _difference(role, outputs[role], value, num_samples, tolerance)
            largest_difference = max(largest_difference, difference)
    return largest_difference


def _difference(
    role: str, output: Tensor, expected: Tensor, num_samples: int, tolerance: float
) -> float:
    """Largest difference of one output; an error if it exceeds the tolerance."""
    if output.shape != expected.shape:
        raise RuntimeError(
            f"the ONNX file gives {role} of another shape at batch size {num_samples}. "
            f"Expected {tuple(expected.shape)} as in PyTorch, got {tuple(output.shape)}"
        )
    difference = (output - expected).abs().max().item()
    largest = expected.abs().max().item()
    # The negated comparison is also true for NaN.
    if not difference <= tolerance * max(largest, 1e-6):
        raise RuntimeError(
            f"the {role} of the ONNX file differ from PyTorch at batch size {num_samples}. "
            f"Expected at most {tolerance:g} of the largest value, {largest:.4g}, got a "
            f"difference of {difference:.3g}"
        )
    return difference


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress warnings, progress lines and logs of the exporter."""
    disabled = logging.root.manager.disable
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        for module in NOISY_MODULES:
            warnings.filterwarnings("ignore", module=module)
        for message in NOISY_MESSAGES:
            warnings.filterwarnings("ignore", message=message)
        # The exporter logs through some forty loggers, so all of them are disabled at once.
        logging.disable(logging.ERROR)
        try:
            yield
        finally:
            logging.disable(disabled)


def _check_packages() -> None:
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(
            'exporting to ONNX needs onnx and onnxscript: pip install "instil[export]"'
        ) from error
