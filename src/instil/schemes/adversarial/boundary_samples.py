"""Images that the teacher's decision boundary lies beside, sought from real ones, teach where it lies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import ceil
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor, nn

from instil.core import (
    UNLABELLED,
    Batch,
    Card,
    NonNegative,
    Objective,
    Objectives,
    Positive,
    Schedule,
    Scheme,
    Teacher,
    Update,
    at_progress,
    item_weights,
    keyed_uniform,
    mean,
    replace_invalid,
    replace_uncounted,
    to_float32,
)
from instil.modules.eval_mode import eval_mode
from instil.schemes.bases.robust import soft_label_loss

NO_TAPS: frozenset[str] = frozenset()
FADING = Schedule(2.0, 0.0, until=0.75)
"""The published weight."""
BEYOND = 1e-4
"""A little further than to the boundary."""


def boundary_step(
    image: Tensor, logits: Tensor, base: Tensor, target: Tensor, gradient: Tensor, step_size: float
) -> Tensor:
    """x - eta (f_b - f_k + 1e-4) g / ||g||, with g the gradient of f_b - f_k: the step is shorter the nearer the boundary is (Heo et al. 2019).

    Images (N, ...), logits (N, C), classes ``base`` and ``target`` (N,). An image that is no longer of its base class stays where it is.
    """
    apart = (logits.gather(1, base[:, None]) - logits.gather(1, target[:, None])).squeeze(
        1
    ) + BEYOND
    length = (
        apart
        * (logits.argmax(1) == base)
        / torch.linalg.vector_norm(gradient.flatten(1), dim=1).clamp_min(
            torch.finfo(gradient.dtype).tiny
        )
    )
    moved: Tensor = (
        image - step_size * length.to(image.dtype).view(-1, *[1] * (image.ndim - 1)) * gradient
    )
    return moved


class BoundarySamples(Scheme):
    """Beside the objectives, the loss ``boundary``: the teacher's softened answer to images that were led over its decision boundary (Heo et al.
    2019). Of the images that the teacher puts into their class, a share begins at each step, each led to another class, which is drawn by the
    teacher's probability of it.

    ``weight``: of the loss ``boundary``; as published it falls from 2 to 0 in three quarters of the training.
    ``temperature``: divides the logits of that loss, as published without its square as a factor.
    ``share``: of the batch that is led to the boundary: those images on whose other classes student and teacher differ most.
    ``attack_steps``: how many steps lead there.
    ``step_size``: how far each goes for a difference of the logits.
    """

    card = Card(
        "Knowledge distillation with adversarial samples supporting decision boundary",
        "https://arxiv.org/abs/1805.05532",
        "AAAI",
        2019,
        source="offline",
        algorithms=("adversarial",),
        labels=("single",),
        couples=True,
        equation=r"\mathcal{L}_{obj} + \beta\, \mathrm{KL}(p^t_T(\tilde x) \Vert p^s_T(\tilde x)), \quad \tilde x \leftarrow \tilde x - \eta\, "
        r"(f^t_b(\tilde x) - f^t_k(\tilde x) + \varepsilon) \frac{\nabla (f^t_b - f^t_k)}{\Vert \nabla (f^t_b - f^t_k) \Vert_2}",
        use="A classifier with more than enough images, or few: images beside the teacher's boundary say more of it than those amid a class. It "
        "stands beside cross_entropy and kd.",
        pitfalls="Each step costs as many passes forth and back through the teacher as the attack has steps, for a share of the batch. step_size is "
        "in units of the images: the published 0.3 is for CIFAR-10 divided by a deviation of 0.2. With a share below 1, which images are led "
        "depends on those of their micro-batch.",
        deviations="Where no other class than the drawn one is reached, the image is learnt from all the same, as in the authors' code. Images stay "
        "in [0, 1]. An image without a label begins in the class that the teacher gives it.",
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        weight: NonNegative | Schedule = FADING,
        temperature: Positive = 3.0,
        share: Annotated[float, Gt(0), Le(1)] = 0.25,
        attack_steps: Annotated[int, Ge(1)] = 10,
        step_size: Positive = 0.1,
    ):
        super().__init__(student, teacher, objectives)
        self.weight, self.temperature, self.share = weight, temperature, share
        self.attack_steps, self.step_size = attack_steps, step_size

    def build(self, batch: Batch) -> None:
        if self.teacher is None:
            raise ValueError("BoundarySamples needs a teacher, whose boundary it seeks")
        if self.objectives.needs_input_grad:
            raise ValueError(
                f"{self.objectives.requires_double_backward()[0]} takes gradients by the input, which BoundarySamples cannot give"
            )
        image, theirs = batch.get("image", torch.empty(0)), self.teacher_outputs(batch)["logits"]
        if not image.is_floating_point() or image.ndim < 2:
            raise ValueError(
                f"'image', floating point in [0, 1], is led to the boundary; the batch has {', '.join(batch)}"
            )
        if theirs.ndim != 2 or theirs.shape[1] < 2 or batch["label"].shape != theirs.shape[:1]:
            shapes = f"the teacher's logits are {tuple(theirs.shape)}, the labels {tuple(batch['label'].shape)}"
            raise ValueError(
                f"{shapes}; BoundarySamples needs (N, C) with two classes or more, and one class an image"
            )
        super().build(batch)
        self.teacher.select_roles(self.objectives.reads("teacher") | {"logits"}, batch)

    def before_step(self, batch: Batch) -> Batch:
        """The batch with ``boundary``, images that were led to the boundary, and ``begun``, 1 for those that count."""
        if not self.seeks(batch):
            return batch
        with torch.no_grad(), eval_mode(self.student):
            teacher, student = (
                to_float32(self.teacher_outputs(batch)["logits"]),
                to_float32(self.student(batch, roles=NO_TAPS)["logits"]),
            )
        base = teacher.argmax(1)
        right = (item_weights(batch) > 0) & (
            (batch["label"] == base) | (batch["label"] == UNLABELLED)
        )
        apart = (
            (teacher.softmax(1) - student.softmax(1)).square().scatter(1, base[:, None], 0.0).sum(1)
        )
        chosen = apart.masked_fill(~right, -1.0).topk(ceil(self.share * len(base))).indices
        target = other_class(teacher, base, keyed_uniform(batch, 1, "scheme.target_classes"))
        image = self.led(batch | {"valid": right[chosen]}, base[chosen], target[chosen], chosen)
        return batch | {
            # The image of a sample that does not count may hold NaN after the attack.
            "boundary": replace_uncounted(image, right[chosen]),
            "begun": right[chosen].to(teacher.dtype),
        }

    def seeks(self, batch: Batch) -> bool:
        """Whether the loss has a weight at this moment."""
        return at_progress(self.weight, batch) > 0

    def led(self, batch: Batch, base: Tensor, target: Tensor, chosen: Tensor) -> Tensor:
        """The chosen images after the attack on the teacher, from ``base`` to ``target``."""
        image: Tensor = batch["image"][chosen]
        for _ in range(self.attack_steps):
            with torch.enable_grad():
                leaf = image.detach().requires_grad_()
                logits = to_float32(
                    self.teacher_outputs(batch | {"image": leaf}, grad=True)["logits"]
                )
                apart = logits.gather(1, base[:, None]) - logits.gather(1, target[:, None])
                (gradient,) = torch.autograd.grad(apart.sum(), leaf)
            image = boundary_step(
                image, logits.detach(), base, target, gradient, self.step_size
            ).clamp(0, 1)
        return image

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        return {
            **super().counts(batch),
            **({"boundary": batch["begun"].sum()} if self.seeks(batch) else {}),
        }

    def step(self, batch: Batch) -> Iterator[Update]:
        yield self.compute_losses(batch)

    def compute_losses(self, batch: Batch) -> Update:
        """The objectives' update with the loss ``boundary``."""
        update = super().compute_losses(batch)
        if self.seeks(batch):
            led = batch | {"image": batch["boundary"], "valid": batch["begun"]}
            student = replace_invalid(self.student(led, roles=NO_TAPS)["logits"], led)
            teacher = replace_invalid(self.teacher_outputs(led)["logits"], led)
            values = soft_label_loss(student, teacher, self.temperature) / self.temperature**2
            update.losses["boundary"] = at_progress(self.weight, batch) * mean(
                values, batch["begun"]
            )
        return update


def other_class(logits: Tensor, base: Tensor, draws: Tensor) -> Tensor:
    """For each row of logits (N, C) a class beside ``base`` (N,), by its softmax among the others; ``draws`` (N, 1) in [0, 1)."""
    share = logits.scatter(1, base[:, None], -torch.inf).softmax(1).cumsum(1)
    return (share <= draws * share[:, -1:]).sum(1)
