"""Contract of tasks: metrics of outputs that are right or wrong with certainty."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from instil.core import Batch, Net
from instil.modules.denoiser import Denoiser
from instil.modules.noisy_sample import to_model_range

LOGIT = 20.0
"""Logit of a certain output."""


def check_perfect_outputs(make: Callable[[], Any], batch: Batch, num_classes: int) -> None:
    """Check that certain outputs have accuracy 1 if they are right, and 0 if they are wrong.

    Real outputs at the labels must have a headline metric of 1. The error rate of certain texts
    must be 0. Embeddings that are the same for each label only must have the best value of the
    headline metric, 1 or 0. Generated images that are the real ones must have the distance 0.

    Args:
        make: returns a new task.
        batch: batch of the task.
        num_classes: number of classes.

    Raises:
        AssertionError: for another metric.
    """
    if make().kind == "real":
        _check_real_outputs(make, batch)
        return
    if "frame_length" in make().roles:
        _check_texts(make, batch, num_classes)
        return
    if make().roles == ("denoised",):
        _check_images(make, batch)
        return
    if "mask_logits" in make().roles:
        _check_masks(make, batch)
        return
    label = batch["label"]
    target = label.clamp_min(0)
    if make().roles == ("embedding",):
        embedding = torch.nn.functional.one_hot(target, num_classes).float()
        metrics = _evaluate(make, _echo(make().roles), batch | {"certain embedding": embedding})
        best = float(make().higher_is_better)
        assert metrics[make().headline] == best, f"{metrics} for certain embeddings"
        return
    if not label.is_floating_point():
        target = torch.nn.functional.one_hot(target, num_classes)
    target = target.float()
    for sign, expected in ((1.0, 1.0), (-1.0, 0.0)):
        outputs = _certain_outputs(batch, target, sign)
        inputs = {f"certain {role}": value for role, value in outputs.items()}
        accuracy = _evaluate(make, _echo(make().roles), batch | inputs)["accuracy"]
        direction = "right" if sign > 0 else "wrong"
        assert accuracy == expected, (
            f"accuracy is {accuracy}, not {expected}, for outputs that are {direction} with "
            "certainty"
        )


class _Memory(nn.Module):
    """Network whose output is the n-th real image for the n-th sample."""

    def __init__(self, image: Tensor):
        super().__init__()
        self.image = image

    def forward(self, noisy: Tensor, time: Tensor) -> Tensor:
        return to_model_range(self.image[: len(noisy)])


def _check_images(make: Callable[[], Any], batch: Batch) -> None:
    """Check that generated images which are the real ones have the distance 0."""
    denoiser = Denoiser(_Memory(batch["image"]), "x0", "flow", steps=1)
    metrics, _ = make().evaluate(Net(denoiser, make().call), [batch])
    distance = metrics[make().headline]
    assert math.isclose(distance, 0, abs_tol=1e-6), (
        f"{make().headline} is {distance}, not 0, for generated images that are the real ones"
    )
    for name in ("precision", "coverage"):
        assert metrics[name] == 1, f"{name} is {metrics[name]}, not 1, for the real images"


def _check_masks(make: Callable[[], Any], batch: Batch) -> None:
    """Check masks of the prompts that are right, and those that are wrong in every pixel."""
    target = 2 * (batch["label"] == 1).float() - 1
    num_prompts = sum(key in batch for key in ("box", "points"))
    for sign, expected in ((1.0, 1.0), (-1.0, 0.0)):
        masks = (sign * LOGIT * target)[:, None, None].expand(-1, num_prompts, -1, -1, -1)
        scores = torch.ones(masks.shape[:3])
        certain = {"certain mask_logits": masks, "certain iou_scores": scores}
        metrics = _evaluate(make, _echo(make().roles), batch | certain)
        for name in (make().headline, "accuracy"):
            assert metrics[name] == expected, f"{name} is {metrics[name]}, not {expected}"


def _check_texts(make: Callable[[], Any], batch: Batch, num_classes: int) -> None:
    """Check frames that alternate between the symbols of the label and the blank, class 0."""
    label = batch["label"]
    classes = torch.stack([label.clamp_min(0), torch.zeros_like(label)], 2).flatten(1)
    length = 2 * (label >= 0).sum(1)
    one_hot = torch.nn.functional.one_hot(classes, num_classes).float()
    certain = {"certain logits": LOGIT * one_hot, "certain frame_length": length}
    error_rate = _evaluate(make, _echo(make().roles), batch | certain)[make().headline]
    assert error_rate == 0, f"the error rate is {error_rate}, not 0, for certain texts"
    blanks = {"certain logits": torch.zeros_like(one_hot), "certain frame_length": length}
    error_rate = _evaluate(make, _echo(make().roles), batch | blanks)[make().headline]
    assert error_rate == 1, f"the error rate is {error_rate}, not 1, for texts without a symbol"


def _certain_outputs(batch: Batch, target: Tensor, sign: float) -> dict[str, Tensor]:
    """Return outputs of all roles that are right (sign 1) or wrong (sign -1)."""
    first = dict.fromkeys(("image_embedding", "sentence_embedding"), sign * target)
    second = dict.fromkeys(("text_embedding", "partner_embedding"), target)
    logits = sign * LOGIT * (2 * target - 1)
    return {**_certain_boxes(batch, sign), "logits": logits, **first, **second}


def _certain_boxes(batch: Batch, sign: float) -> dict[str, Tensor]:
    """Return distributions of box edges for boxes whose edges lie on bins."""
    if "box" not in batch:
        return {}
    edges = batch["box"].clamp_min(0).round().long()
    one_hot = torch.nn.functional.one_hot(edges).float()
    return {"box_logits": sign * LOGIT * (2 * one_hot - 1).flatten(1)}


def _echo(roles: Any) -> Net:
    """Return a net whose outputs are entries of the batch."""

    def call(_model: nn.Module, batch: Batch) -> dict[str, Any]:
        return {role: batch[f"certain {role}"] for role in roles}

    return Net(nn.Identity(), call)


def _check_real_outputs(make: Callable[[], Any], batch: Batch) -> None:
    label = batch["label"].nan_to_num()
    headline = make().headline
    net = _echo(("logits",))
    perfect = _evaluate(make, net, batch | {"certain logits": label})[headline]
    assert math.isclose(perfect, 1, abs_tol=1e-6), (
        f"{headline} is {perfect}, not 1, for outputs at the label"
    )
    shifted = _evaluate(make, net, batch | {"certain logits": label.roll(1, 0)})[headline]
    assert shifted < 1, f"{headline} is {shifted} for outputs at the labels of other samples"


def _evaluate(make: Callable[[], Any], net: Net, batch: Batch) -> dict[str, float]:
    metrics: dict[str, float] = make().evaluate(net, [batch])[0]
    return metrics
