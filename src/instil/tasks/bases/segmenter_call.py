"""Call of segmentation models of torchvision and transformers."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instil.cards import form_of
from instil.core import UNLABELLED, Batch, Outputs, to_float32
from instil.tasks.bases.own_labels import label_parameter

SMALLEST_SCORE = 1e-6
"""Smallest score of a class of a model of masks, whose logarithm is a logit."""


def segmenter_outputs(
    model: nn.Module, batch: Batch, images: Tensor, pass_labels: bool = False
) -> Outputs:
    """Compute logits (N, C, h, w) of a model, and its own loss.

    Args:
        model: a model that returns logits as a tensor, as ``out`` (torchvision) or as ``logits``
            (transformers); or masks and classes of queries, such as Mask2Former.
        batch: batch with ``label`` (N, H, W).
        images: images for the model.
        pass_labels: whether a model that computes its loss itself receives the labels in train
            mode.

    Returns:
        ``logits``, and ``loss`` if the model returns one. The logits of a model of masks are the
        logarithms of the class scores of each pixel, summed over the queries.
    """
    arguments = _label_arguments(model, batch) if pass_labels and model.training else {}
    has_masks = reads_masks(model)
    if has_masks and images.shape[1] == 1:
        images = images.expand(-1, 3, -1, -1)
    result: Any = model(images, **arguments)
    outputs: Outputs = {}
    if isinstance(result, Mapping):
        if result.get("loss") is not None:
            outputs["loss"] = result["loss"].mean()
        if has_masks:
            logits = _class_scores(result)
        else:
            logits = result["out"] if "out" in result else result.get("logits", result)
    else:
        logits = result[0] if isinstance(result, (tuple, list)) else result
    return {"logits": logits} | outputs


def reads_masks(model: nn.Module) -> bool:
    """Whether a model learns from one mask per class, as Mask2Former.

    Args:
        model: the model.
    """
    return "mask_labels" in inspect.signature(model.forward).parameters


def _label_arguments(model: Any, batch: Batch) -> dict[str, Any]:
    """Labels in the form that the model reads."""
    if "label" not in batch:
        return {}
    label: Tensor = batch["label"]
    if "valid" in batch:
        label = label.masked_fill(~batch["valid"].bool(), UNLABELLED)
    if reads_masks(model):
        classes = [part[part != UNLABELLED].unique() for part in label]
        masks = [
            (part == present[:, None, None]).float()
            for part, present in zip(label, classes, strict=True)
        ]
        return {"mask_labels": masks, "class_labels": classes}
    if label_parameter(model) != "labels":
        return {}
    ignored = getattr(model.config, "semantic_loss_ignore_index", UNLABELLED)
    return {"labels": label.masked_fill(label == UNLABELLED, ignored)}


def _class_scores(result: Mapping[str, Any]) -> Tensor:
    """Logarithm of the scores (N, C, h, w): class probability times mask, summed over queries."""
    # The last class of a query is no object.
    probability = to_float32(result["class_queries_logits"]).softmax(-1)[..., :-1]
    masks = to_float32(result["masks_queries_logits"]).sigmoid()
    scores = torch.einsum("nqc,nqhw->nchw", probability, masks)
    return scores.clamp_min(SMALLEST_SCORE).log()


def resized_logits(logits: Tensor, height: int, width: int) -> Tensor:
    """Return logits (N, H, W, C) in the size of the images (bilinear).

    Args:
        logits: (N, C, h, w).
        height: height of the images.
        width: width of the images.

    Raises:
        ValueError: for an output that is not a map.
    """
    if not isinstance(logits, Tensor) or logits.ndim != 4:
        raise ValueError(
            "the model has no output for each pixel. Expected (N, C, height, width), got "
            f"{form_of(logits)}"
        )
    if logits.shape[-2:] != (height, width):
        logits = F.interpolate(logits, (height, width), mode="bilinear")
    return logits.movedim(1, -1)
