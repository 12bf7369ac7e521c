"""Attacks of the robustness evaluation."""

from __future__ import annotations

import functools

import torch.nn.functional as F
from torch import Tensor, nn

from instil.core import UNLABELLED, Batch, Teacher, to_float32
from instil.functional.attacks import fgsm, pgd
from instil.functional.keyed_random import keyed_uniform

EVALUATION_STEPS = 20
"""Steps of the PGD attack that the report evaluates."""


def attacked_batch(
    epsilon: float, net: nn.Module, batch: Batch, step_size: float | None = None
) -> Batch:
    """Attack the images of a batch so that the cross-entropy with the label rises.

    Args:
        epsilon: largest change of a pixel.
        net: network under attack, or a teacher.
        batch: images in [0, 1]; those without a label stay unchanged.
        step_size: change of a pixel in one step of PGD; None: FGSM.

    Returns:
        The batch with the attacked images.
    """
    image = batch["image"]
    label = batch["label"]
    forward = functools.partial(net, grad=True) if isinstance(net, Teacher) else net

    def attack_loss(changed: Tensor) -> Tensor:
        logits = to_float32(forward(batch | {"image": changed})["logits"])
        return F.cross_entropy(logits, label, ignore_index=UNLABELLED, reduction="none")

    if step_size is None:
        return batch | {"image": fgsm(attack_loss, image, epsilon)}
    start = None
    if "index" in batch:
        start = (
            keyed_uniform(batch, image[0].numel(), "evaluation.attack_start")
            .view_as(image)
            .to(image.dtype)
        )
    attacked = pgd(attack_loss, image, epsilon, step_size, EVALUATION_STEPS, start)
    return batch | {"image": attacked}
