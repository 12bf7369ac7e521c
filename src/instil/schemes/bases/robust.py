"""What schemes share whose student learns from attacked images to withstand attacks."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor, nn

from instil.core import (
    UNLABELLED,
    Batch,
    NonNegative,
    Objective,
    Objectives,
    Perturbation,
    Positive,
    Scheme,
    Teacher,
    Update,
    item_weights,
    keyed_uniform,
    mean,
    replace_invalid,
    to_float32,
)
from instil.functional.attacks import AttackLoss, fgsm, pgd
from instil.modules.eval_mode import eval_mode

EPSILON, STEP_SIZE, TRIAL_STEPS = 8 / 255, 2 / 255, 20
NO_TAPS: frozenset[str] = frozenset()


def soft_label_loss(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """T² KL(teacher || student) of the softmax at temperature T: logits (N, C) give (N,). Gradients reach both."""
    mine, theirs = (
        (to_float32(logits) / temperature).log_softmax(-1) for logits in (student, teacher)
    )
    return F.kl_div(mine, theirs, reduction="none", log_target=True).sum(-1) * temperature**2


def label_loss(logits: Tensor, target: Tensor) -> Tensor:
    """The cross-entropy with class indices (N,): (N,)."""
    return F.cross_entropy(to_float32(logits), target, reduction="none")


class AttackScheme(Scheme):
    """Each step attacks the student of that moment by projected gradient ascent, in eval mode, from a random start in the box around each image.

    The images must lie in [0, 1]. The attacked ones are the batch's ``attacked``; subclasses say what the attack raises (``attack_loss``) and how the
    student learns. The report also gives the accuracy of every net under attacks on the label (FGSM, and PGD of 20 steps) within ``epsilon``.

    ``epsilon``: how far an attack may change each pixel of images in [0, 1].
    ``step_size``: how far each step of the attack goes.
    ``attack_steps``: how many steps the attack takes while the student learns.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        epsilon: NonNegative = EPSILON,
        step_size: Positive = STEP_SIZE,
        attack_steps: Annotated[int, Ge(1)] = 10,
    ):
        super().__init__(student, teacher, objectives)
        self.epsilon, self.step_size, self.attack_steps = epsilon, step_size, attack_steps

    def build(self, batch: Batch) -> None:
        image: Tensor = batch.get("image", torch.empty(0))
        if not image.is_floating_point() or image.ndim < 2:
            raise ValueError(
                f"attacks change 'image', floating point in [0, 1]; the batch has {', '.join(batch)}"
            )
        if self.objectives.needs_input_grad:
            inside = self.objectives.requires_double_backward()[0]
            raise ValueError(
                f"{inside} takes gradients by the input, which {type(self).__name__} cannot give"
            )
        self.check_logits(batch)
        super().build(batch)

    def check_logits(self, batch: Batch) -> None:
        """ValueError where the nets do not classify images, or labels are not classes."""
        logits = self.student(batch)["logits"]
        if logits.ndim != 2 or logits.shape[1] < 2:
            raise ValueError(
                f"the logits are {tuple(logits.shape)}; {type(self).__name__} needs (N, C) with two classes or more"
            )
        self.targets(batch, logits)

    def before_step(self, batch: Batch) -> Batch:
        """The batch with ``attacked``, its images after the attack."""
        image: Tensor = batch["image"]
        start = keyed_uniform(batch, image[0].numel()).view_as(image).to(image.dtype)
        with eval_mode(self.student):
            attacked = pgd(
                self.attack_loss(batch),
                image,
                self.epsilon,
                self.step_size,
                self.attack_steps,
                start,
            )
        return batch | {"attacked": attacked}

    def step(self, batch: Batch) -> Iterator[Update]:
        yield self.compute_losses(batch)

    def attack_loss(self, batch: Batch) -> AttackLoss:
        """What the attack makes larger."""
        raise NotImplementedError

    def student_logits(self, batch: Batch, image: Tensor) -> Tensor:
        """The student's logits for other images."""
        logits: Tensor = self.student(batch | {"image": image}, roles=NO_TAPS)["logits"]
        return logits

    def cross_entropy_attack(self, target: Tensor, batch: Batch) -> AttackLoss:
        """The student's cross-entropy with these classes (N,)."""
        return lambda image: label_loss(self.student_logits(batch, image), target)

    def targets(self, batch: Batch, guess: Tensor) -> Tensor:
        """The class of each image: its label, and where it has none that of the logits ``guess``. ValueError for several labels an image."""
        guess = guess.argmax(-1)
        label: Tensor = batch.get("label", torch.full_like(guess, UNLABELLED))
        if label.shape != guess.shape or label.is_floating_point():
            raise ValueError(
                f"{type(self).__name__} needs one class an image; the labels are {label.dtype} of shape {tuple(label.shape)}"
            )
        return torch.where(label == UNLABELLED, guess, label)

    @classmethod
    def robustness_evaluations(cls, options: Mapping[str, Any]) -> dict[str, Perturbation]:
        """FGSM, and PGD of 20 steps from a random start, on the label and within the ``epsilon`` of the recipe."""
        epsilon, step_size = options.get("epsilon", EPSILON), options.get("step_size", STEP_SIZE)
        return {
            "fgsm": functools.partial(attacked_batch, epsilon),
            "pgd": functools.partial(attacked_batch, epsilon, step_size=step_size),
        }


class RobustScheme(AttackScheme):
    """Beside the objectives, which compare both nets on the images as they are, the loss ``robust_losses`` of the student's answers to attacked ones.

    ``weight``: of the loss ``robust_losses``.
    """

    temperature: float = 1.0

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        weight: NonNegative = 1.0,
        epsilon: NonNegative = EPSILON,
        step_size: Positive = STEP_SIZE,
        attack_steps: Annotated[int, Ge(1)] = 10,
    ):
        super().__init__(student, teacher, objectives, epsilon, step_size, attack_steps)
        self.weight = weight

    def build(self, batch: Batch) -> None:
        super().build(batch)
        assert self.teacher is not None
        self.teacher.select_roles(self.objectives.reads("teacher") | {"logits"}, batch)

    def check_logits(self, batch: Batch) -> None:
        if self.teacher is None:
            raise ValueError(f"{type(self).__name__} needs a teacher")
        mine, theirs = self.student(batch)["logits"], self.teacher_outputs(batch)["logits"]
        if mine.ndim != 2 or mine.shape != theirs.shape or mine.shape[1] < 2:
            shapes = (
                f"the student's logits are {tuple(mine.shape)}, the teacher's {tuple(theirs.shape)}"
            )
            raise ValueError(
                f"{shapes}; {type(self).__name__} needs both (N, C) with the same two classes or more"
            )
        self.targets(batch, theirs)

    def before_step(self, batch: Batch) -> Batch:
        """The batch with ``attacked``, and with ``taught``, the teacher's outputs for the images as they are, so that it is asked once."""
        return super().before_step(batch | {"taught": self.teacher_outputs(batch)})

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        return {**super().counts(batch), "robust": item_weights(batch).sum()}

    def compute_losses(self, batch: Batch) -> Update:
        """The objectives' update with the loss ``robust_losses``."""
        student, teacher = self.student(batch), batch["taught"]
        update: Update = self.objectives(student, teacher, batch)
        attacked, student_logits, teacher_logits = (
            replace_invalid(logits, batch)
            for logits in (
                self.student_logits(batch, batch["attacked"]),
                student["logits"],
                teacher["logits"],
            )
        )
        values = self.robust_losses(batch, attacked, student_logits, teacher_logits)
        update.losses["robust"] = self.weight * mean(values, item_weights(batch))
        return update

    def robust_losses(
        self, batch: Batch, attacked: Tensor, student: Tensor, teacher: Tensor
    ) -> Tensor:
        """(N,): the loss of the student's ``attacked`` logits, by those of both nets for the images as they are; here the teacher's soft labels."""
        return soft_label_loss(attacked, teacher, self.temperature)

    def teacher_logits(self, batch: Batch, image: Tensor, grad: bool = False) -> Tensor:
        """The teacher's logits for other images."""
        logits: Tensor = self.teacher_outputs(batch | {"image": image}, grad)["logits"]
        return logits

    def label_attack(self, batch: Batch) -> AttackLoss:
        """The student's cross-entropy with the label, and with the teacher's class where there is none."""
        return self.cross_entropy_attack(self.targets(batch, batch["taught"]["logits"]), batch)


def attacked_batch(
    epsilon: float, net: nn.Module, batch: Batch, step_size: float | None = None
) -> Batch:
    """The batch after an attack on the labels that it has: FGSM, or PGD where there is a ``step_size``; images without a label stay as they are."""
    image, label = batch["image"], batch["label"]
    ask = functools.partial(net, grad=True) if isinstance(net, Teacher) else net

    def threat(changed: Tensor) -> Tensor:
        return F.cross_entropy(
            to_float32(ask(batch | {"image": changed})["logits"]),
            label,
            ignore_index=UNLABELLED,
            reduction="none",
        )

    if step_size is None:
        return batch | {"image": fgsm(threat, image, epsilon)}
    start = (
        keyed_uniform(batch, image[0].numel()).view_as(image).to(image.dtype)
        if "index" in batch
        else None
    )
    return batch | {"image": pgd(threat, image, epsilon, step_size, TRIAL_STEPS, start)}
