"""ONNX file of a detector, with decoded boxes and the suppression of overlapping ones."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from instil.core import Batch, Net, batch_size
from instil.export.latency import resized
from instil.export.onnx_labels import label_file
from instil.export.session import Session, to_arrays
from instil.files.atomic import atomic

OUTPUTS = ("boxes", "scores", "labels")
OPSET = 17
"""Version of the operators, which include the suppression."""
NUM_IMAGES = 8
"""Number of images on which PyTorch and ONNX are compared."""
TOLERANCE = 1e-3
"""Largest difference of an object; edges of boxes as a share of the larger side of the image."""
LARGEST_SHARE = 0.01
"""Share of the objects that may have no counterpart.

A rounding error decides whether a box at a threshold is removed, and whether the box that it
overlaps stays.
"""


def detector_to_onnx(
    net: Net,
    batch: Batch,
    path: str | Path,
    name: str = "image",
    metadata: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Write a detector of any number of objects as a graph for one image.

    The input is ``image`` (1, C, H, W) in [0, 1]. The outputs are ``boxes`` (K, 4) in pixels (left,
    top, right, bottom), ``scores`` (K,) and ``labels`` (K,), the class indices of the data. K
    differs by image: overlapping boxes of a class are removed inside the graph, if the detector
    does so itself. Detection transformers need no suppression.

    Args:
        net: student of the task ``detection`` with ``kind: boxes``; it is not changed.
        batch: images of the data, float in [0, 1], on which both runtimes are compared.
        path: file to write.
        name: key of the images, which is the name of the input.
        metadata: stored in the file as ``metadata_props``.

    Returns:
        ``file``, ``bytes``, ``max_difference`` (of scores, and of edges as a share of the larger
        side) and ``num_objects``, the number of compared objects.

    Raises:
        ImportError: without the extra ``export``.
        ValueError: for a model that does not detect objects, or cannot be exported.
        RuntimeError: if the outputs differ.
    """
    graph = _OneImage(copy.deepcopy(net), name).cpu().float().eval()
    images = torch.from_numpy(to_arrays(batch, [name])[name])
    images = resized({name: images}, min(NUM_IMAGES, batch_size({name: images})))[name]
    path = Path(path)
    with atomic(path) as temporary:
        _export(graph, images[:1], temporary)
        label_file(temporary, metadata or {})
        facts = _compare(graph, Session(temporary, OUTPUTS), images)
    return {"file": path.name, "bytes": path.stat().st_size, **facts}


class _OneImage(nn.Module):
    """Detector that reads one image and returns tensors."""

    def __init__(self, net: Net, name: str):
        super().__init__()
        # No tap is an output of the graph.
        self.net = Net(net.model, net.call, {})
        self.name = name

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        outputs = self.net({self.name: image})
        if "detections" not in outputs:
            raise ValueError(
                "net: it does not detect any number of objects. Expected a student of the task "
                f"detection with kind: boxes, got the outputs {', '.join(outputs)}"
            )
        (detections,) = outputs["detections"]
        return tuple(detections[output] for output in OUTPUTS)


def _export(graph: _OneImage, image: Tensor, path: Path) -> None:
    with torch.no_grad():
        graph(image)
    with warnings.catch_warnings(), torch.no_grad():
        # The newer exporter cannot trace a number of boxes that depends on the image, and the
        # tracer warns about every size that becomes constant.
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(
                graph,
                (image,),
                str(path),
                input_names=[graph.name],
                output_names=list(OUTPUTS),
                dynamic_axes={output: {0: "objects"} for output in OUTPUTS},
                opset_version=OPSET,
                dynamo=False,
            )
        # The exporter and the tracer below it raise errors of many classes.
        except Exception as error:
            reason = str(error).strip().partition("\n")[0]
            raise ValueError(f"torch.onnx cannot export this detector: {reason}") from error


def _compare(graph: _OneImage, session: Session, images: Tensor) -> dict[str, Any]:
    """Compare the objects of PyTorch and ONNX in each image."""
    largest, num_objects, num_unpaired = 0.0, 0, 0
    for image in images:
        with torch.no_grad():
            expected = dict(zip(OUTPUTS, graph(image[None]), strict=True))
        outputs = session({graph.name: image[None]})
        for first, second in ((expected, outputs), (outputs, expected)):
            distances = _distances(first, second, max(image.shape[-2:]))
            is_paired = distances <= TOLERANCE
            num_objects += len(distances)
            num_unpaired += int((~is_paired).sum())
            if is_paired.any():
                largest = max(largest, float(distances[is_paired].max()))
    if num_unpaired > LARGEST_SHARE * num_objects:
        raise RuntimeError(
            f"{num_unpaired} of {num_objects} objects of PyTorch and ONNX differ. Expected at most "
            f"{LARGEST_SHARE:.0%}. A detector without training gives many equal scores, whose "
            "order is undefined"
        )
    return {"max_difference": largest, "num_objects": num_objects // 2}


def _distances(objects: dict[str, Tensor], others: dict[str, Tensor], side: int) -> Tensor:
    """Difference between each object and its closest one of the other runtime.

    Objects with scores that are equal up to rounding may change places.
    """
    if not len(others["scores"]):
        return torch.full_like(objects["scores"], torch.inf)
    edges = (objects["boxes"][:, None] - others["boxes"]).abs().amax(-1) / side
    scores = (objects["scores"][:, None] - others["scores"]).abs()
    is_other = objects["labels"][:, None] != others["labels"]
    return torch.maximum(edges, scores).masked_fill(is_other, torch.inf).amin(1)
