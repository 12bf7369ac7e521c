"""ONNX file of a detector of torchvision, with the suppression of overlapping boxes."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from instil.export.session import Session
from instil.files.atomic import atomic

OUTPUTS = ("boxes", "labels", "scores")
OPSET = 17
"""Version of the operators, which include the suppression."""
NUM_IMAGES = 3
"""Number of random images on which PyTorch and ONNX are compared."""
TOLERANCE = 1e-3
"""Largest difference of an object; edges of boxes as a share of the larger side of the image."""


def detector_to_onnx(model: nn.Module, path: str | Path, size: tuple[int, int]) -> dict[str, Any]:
    """Write a detector of torchvision as a graph for one image.

    The input is ``image`` (1, 3, H, W) in [0, 1]. The outputs are ``boxes`` (K, 4) in pixels,
    ``labels`` (K,), the class indices of the data, and ``scores`` (K,). K differs by image:
    overlapping boxes of a class are removed inside the graph.

    Args:
        model: student of the task ``detection`` with ``kind: boxes``; it is not changed.
        path: file to write.
        size: height and width of the images.

    Returns:
        ``file``, ``bytes`` and ``max_difference`` between PyTorch and ONNX.

    Raises:
        ImportError: without the extra ``export``.
        ValueError: for another kind of model.
        RuntimeError: if the outputs differ.
    """
    if not type(model).__module__.startswith("torchvision.models.detection"):
        raise ValueError(
            f"model: not a detector of torchvision. Expected one such as torchvision:FCOS, got "
            f"{type(model).__name__}"
        )
    graph = _OneImage(copy.deepcopy(model)).cpu().float().eval()
    example = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    path = Path(path)
    with atomic(path) as temporary:
        with warnings.catch_warnings(), torch.no_grad():
            # The newer exporter cannot trace a number of boxes that depends on the image, and the
            # tracer warns about every size that becomes constant.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                graph,
                (example,),
                str(temporary),
                input_names=["image"],
                output_names=list(OUTPUTS),
                dynamic_axes={name: {0: "objects"} for name in OUTPUTS},
                opset_version=OPSET,
                dynamo=False,
            )
        difference = _largest_difference(graph, Session(temporary, OUTPUTS), size)
    return {"file": path.name, "bytes": path.stat().st_size, "max_difference": difference}


class _OneImage(nn.Module):
    """Detector that reads one image and returns tensors."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        (detections,) = self.model([image[0]])
        # Class 0 of the model is the background.
        return detections["boxes"], detections["labels"] - 1, detections["scores"]


def _largest_difference(graph: nn.Module, session: Session, size: tuple[int, int]) -> float:
    generator = torch.Generator().manual_seed(1)
    largest = 0.0
    for _ in range(NUM_IMAGES):
        image = torch.rand(1, 3, *size, generator=generator)
        with torch.no_grad():
            expected = dict(zip(OUTPUTS, graph(image), strict=True))
        outputs = session({"image": image})
        counts = [len(side["scores"]) for side in (expected, outputs)]
        if counts[0] != counts[1]:
            raise RuntimeError(
                f"ONNX detects another number of objects. Expected {counts[0]}, got {counts[1]}. A "
                "detector without training gives many equal scores, whose order is undefined"
            )
        if counts[0]:
            largest = max(largest, _difference(expected, outputs, max(size)))
    if not largest <= TOLERANCE:
        raise RuntimeError(
            f"the outputs of ONNX differ by {largest:.2g}. Expected at most {TOLERANCE:g}. A "
            "detector without training gives many equal scores, whose order is undefined"
        )
    return largest


def _difference(expected: dict[str, Tensor], outputs: dict[str, Tensor], side: int) -> float:
    """Largest difference between each object and its closest one of the other side.

    Objects with scores that are equal up to rounding may change places.
    """
    edges = (expected["boxes"][:, None] - outputs["boxes"]).abs().amax(-1) / side
    scores = (expected["scores"][:, None] - outputs["scores"]).abs()
    differences = torch.maximum(edges, scores)
    is_other = expected["labels"][:, None] != outputs["labels"]
    differences = differences.masked_fill(is_other, torch.inf)
    return float(torch.maximum(differences.amin(0).amax(), differences.amin(1).amax()))
