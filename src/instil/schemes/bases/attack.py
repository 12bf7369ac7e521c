"""Attack on the images of a batch, and the checks of the schemes that own one."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from instil.capabilities import Perturbation
from instil.cards import at_progress
from instil.core import UNLABELLED, Batch, Net, Scheme
from instil.functional.attacks import AttackLoss, pgd
from instil.functional.keyed_random import keyed_uniform
from instil.functional.robust_losses import label_loss
from instil.modules.eval_mode import eval_mode
from instil.schemes.bases.attack_evaluation import attacked_batch
from instil.schemes.bases.robust_options import EPSILON, STEP_SIZE

NO_TAPS: frozenset[str] = frozenset()


class Attack(nn.Module):
    """Projected gradient ascent on the images of a batch, against the current student.

    Images are in [0, 1]. It is a module, so that schedules of its options belong to its scheme.

    Args:
        epsilon: largest change of a pixel.
        step_size: change of a pixel in one step.
        steps: number of steps.
    """

    def __init__(self, epsilon: float, step_size: float, steps: int):
        super().__init__()
        self.epsilon = epsilon
        self.step_size = step_size
        self.steps = steps

    def perturb(
        self, student: Net, batch: Batch, make_loss: Callable[[Batch], AttackLoss]
    ) -> Batch:
        """Attack the images from a random start in the box around each image.

        Args:
            student: network under attack, in evaluation mode meanwhile.
            batch: batch with ``image``.
            make_loss: returns the loss that the attack raises, for the batch.

        Returns:
            The batch with the images after the attack, as ``attacked``.
        """
        image: Tensor = batch["image"]
        start = (
            keyed_uniform(batch, image[0].numel(), "scheme.attack_start")
            .view_as(image)
            .to(image.dtype)
        )
        # In training mode each iteration would move the running statistics of BatchNorm, and
        # dropout would change the network between iterations. make_loss may run the student, too.
        with eval_mode(student):
            attacked = pgd(make_loss(batch), image, self.epsilon, self.step_size, self.steps, start)
        return batch | {"attacked": attacked}


def student_logits(student: Net, batch: Batch, image: Tensor) -> Tensor:
    """Return the student's logits (N, C) for other images, without the roles of its taps.

    Args:
        student: the student.
        batch: a batch, whose image is replaced.
        image: (N, channels, H, W).
    """
    # Without taps: an attack runs many forward passes and reads the logits only.
    logits: Tensor = student(batch | {"image": image}, roles=NO_TAPS)["logits"]
    return logits


def cross_entropy_attack(student: Net, batch: Batch, target: Tensor) -> AttackLoss:
    """Return the loss of an attack on the cross-entropy.

    Args:
        student: the student.
        batch: a batch, whose image is replaced.
        target: class indices (N,).
    """
    return lambda image: label_loss(student_logits(student, batch, image), target)


def class_targets(scheme: Scheme, batch: Batch, logits: Tensor) -> Tensor:
    """Return the class of each image: its label, or the most likely class without a label.

    Args:
        scheme: the scheme, named in the error.
        batch: a batch, with or without ``label``.
        logits: (N, C), for images without a label.

    Returns:
        Class indices (N,).

    Raises:
        ValueError: if an image has several labels.
    """
    predicted = logits.argmax(-1)
    label: Tensor = batch.get("label", torch.full_like(predicted, UNLABELLED))
    if label.shape != predicted.shape or label.is_floating_point():
        raise ValueError(
            f"label: {type(scheme).__name__} needs one class index per image,"
            f" got {label.dtype} of shape {tuple(label.shape)}"
        )
    return torch.where(label == UNLABELLED, predicted, label)


def require_attackable(scheme: Scheme, batch: Batch) -> None:
    """Check that a batch has images in [0, 1], and that no objective takes gradients by them.

    Raises:
        ValueError: otherwise.
    """
    name = type(scheme).__name__
    image: Tensor = batch.get("image", torch.empty(0))
    if not image.is_floating_point() or image.ndim < 2:
        raise ValueError(
            f"scheme: {name} attacks images. Expected 'image' in the batch,"
            f" floating point in [0, 1], got a batch with {', '.join(batch)}"
        )
    low, high = (float(value) for value in image.aminmax())
    if low < 0 or high > 1:
        raise ValueError(
            f"data: {name} changes pixels within [0, 1]. Expected such images, got values from"
            f" {low:.3g} to {high:.3g}. To standardise them, set input.mean and input.std of the"
            " networks"
        )
    if scheme.objectives.needs_input_grad:
        objective = scheme.objectives.requires_double_backward()[0]
        raise ValueError(f"{objective} takes gradients by the input, which {name} cannot give")


def robustness_evaluations(options: Mapping[str, Any]) -> dict[str, Perturbation]:
    """Return the attacks of the report, within the (last) ``epsilon`` of the recipe.

    The attacks are FGSM, and PGD with 20 steps from a random start; both raise the cross-entropy
    with the label.

    Args:
        options: options of the scheme in the recipe.
    """
    at_end: Batch = {"progress": 1.0}
    epsilon = at_progress(options.get("epsilon", EPSILON), at_end)
    step_size = at_progress(options.get("step_size", STEP_SIZE), at_end)
    return {
        "fgsm": functools.partial(attacked_batch, epsilon),
        "pgd": functools.partial(attacked_batch, epsilon, step_size=step_size),
    }
