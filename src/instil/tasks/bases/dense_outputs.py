"""Outputs inside one-stage detectors of torchvision: class and box predictions of all anchors."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from instil.items import Outputs
from instil.roles import DenseHead

PREDICTIONS = ("anchor_logits", "anchor_boxes")
"""Roles (N, anchors, C) and (N, anchors, 4) of the predictions."""
FEATURES = ("class_features", "box_features")
"""Roles of the features inside the head: by number of blocks, then by level."""
DISTRIBUTIONS = ("edge_logits", "foreground", "target_boxes", "anchors")
"""Roles of a head with distributions: logits (N, anchors, 4 * bins), the mask (N, anchors) of
anchors with an object, the boxes (N, M, 4) of the labels, and the boxes (N, anchors, 4) of the
anchors. In eval mode, mask and boxes of the labels are 0."""
DENSE_ROLES = (*PREDICTIONS, *FEATURES, *DISTRIBUTIONS, "dense_head")


def has_dense_head(model: Any) -> bool:
    """Whether a model is a detector with the head of RetinaNet or FCOS.

    Args:
        model: a detector.
    """
    head = getattr(model, "head", None)
    branches = [getattr(head, f"{name}_head", None) for name in ("classification", "regression")]
    return all(hasattr(branch, "conv") for branch in branches)


@contextlib.contextmanager
def recorded_head(model: Any, roles: Collection[str] | None) -> Iterator[Outputs]:
    """Record the predictions of all anchors while a detector runs.

    Args:
        model: detector.
        roles: roles that are read; None: all.

    Yields:
        Outputs by role, which are filled in when the context ends. They stay empty for another
        kind of detector, and if no role is read.
    """
    outputs: Outputs = {}
    is_read = roles is None or bool(set(roles) & set(DENSE_ROLES))
    if not (is_read and has_dense_head(model)):
        yield outputs
        return
    recorder = _HeadRecorder(model)
    try:
        yield outputs
    finally:
        recorder.remove()
    outputs |= recorder.outputs()


class _HeadRecorder:
    """Hooks on the head of a detector, for one forward pass."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.predictions: dict[str, Tensor] = {}
        self.anchors: list[Tensor] = []
        self.assigned: dict[str, Tensor] = {}
        self.features: dict[str, list[list[Tensor]]] = {}
        self.hooks = [
            model.head.register_forward_hook(self._keep_predictions),
            model.anchor_generator.register_forward_hook(self._keep_anchors),
        ]
        for role in ("foreground", "target_boxes"):
            if hasattr(model.head, role):
                keep = self._keep_assigned(role)
                self.hooks.append(getattr(model.head, role).register_forward_hook(keep))
        for role, branch in zip(FEATURES, _branches(model), strict=True):
            relus = [layer for layer in _layers(branch.conv) if isinstance(layer, nn.ReLU)]
            self.features[role] = [[] for _ in range(1 + len(relus))]
            for level_lists, layer in zip(self.features[role], [branch.conv, *relus], strict=True):
                self.hooks.append(layer.register_forward_pre_hook(_keep_input(level_lists)))

    def _keep_predictions(self, _module: Any, _inputs: Any, output: dict[str, Tensor]) -> None:
        self.predictions = output

    def _keep_anchors(self, _module: Any, _inputs: Any, output: list[Tensor]) -> None:
        self.anchors = output

    def _keep_assigned(self, role: str) -> Any:
        def keep(_module: Any, _inputs: Any, output: Tensor) -> None:
            self.assigned[role] = output.float()

        return keep

    def remove(self) -> None:
        for hook in self.hooks:
            hook.remove()

    def outputs(self) -> Outputs:
        decode = _Decode(self.model, torch.stack(self.anchors))
        codes = self.predictions["bbox_regression"]
        features = {
            role: tuple(tuple(levels) for levels in blocks)
            for role, blocks in self.features.items()
        }
        return {
            **self._distributions(),
            "anchor_logits": self.predictions["cls_logits"],
            "anchor_boxes": decode(codes),
            **features,
            "dense_head": _dense_head(self.model, decode),
        }

    def _distributions(self) -> Outputs:
        """Distributions of the edges, and anchors and boxes; empty for another head."""
        if "edge_logits" not in self.predictions:
            return {}
        edges = self.predictions["edge_logits"]
        # A detector assigns objects to anchors in train mode only.
        empty = edges.new_zeros(edges.shape[:2], dtype=torch.float32)
        foreground = self.assigned.get("foreground", empty)
        boxes = self.assigned.get("target_boxes", empty.new_zeros(len(edges), 0, 4))
        parts = (edges, foreground, boxes, torch.stack(self.anchors).float())
        return dict(zip(DISTRIBUTIONS, parts, strict=True))


class _Decode:
    """Boxes of codes (N, anchors, 4), in pixels of the images that the detector has resized."""

    def __init__(self, model: Any, anchors: Tensor):
        self.coder = model.box_coder
        self.anchors = anchors
        # The codes of FCOS are distances, which its head cuts off at 0.
        self.is_distance = hasattr(model.head.regression_head, "bbox_ctrness")

    def __call__(self, codes: Tensor) -> Tensor:
        if self.is_distance:
            boxes: Tensor = self.coder.decode(codes.relu(), self.anchors)
            return boxes
        flat: Tensor = self.coder.decode_single(codes.flatten(0, 1), self.anchors.flatten(0, 1))
        return flat.view_as(codes)


def _branches(model: Any) -> tuple[Any, Any]:
    return model.head.classification_head, model.head.regression_head


def _layers(module: nn.Module) -> list[nn.Module]:
    return [layer for layer in module.modules() if not list(layer.children())]


def _keep_input(levels: list[Tensor]) -> Any:
    def keep(_module: Any, inputs: tuple[Tensor, ...]) -> None:
        # A ReLU changes its input in place.
        levels.append(inputs[0].clone())

    return keep


def _dense_head(model: Any, decode: _Decode) -> DenseHead:
    class_branch, box_branch = _branches(model)
    return DenseHead(
        _blocks(class_branch.conv),
        _blocks(box_branch.conv),
        class_branch.cls_logits,
        box_branch.bbox_reg,
        class_branch.num_classes,
        decode,
    )


def _blocks(branch: nn.Module) -> list[nn.Module]:
    """Layers between the ReLUs of a branch."""
    blocks: list[nn.Module] = []
    layers: list[nn.Module] = []
    for layer in _layers(branch):
        if isinstance(layer, nn.ReLU):
            blocks.append(nn.Sequential(*layers))
            layers = []
        else:
            layers.append(layer)
    return blocks
