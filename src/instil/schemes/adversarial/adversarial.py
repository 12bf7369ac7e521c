"""Adversarial distillation: a critic separates student and teacher outputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import Doc

from instil.core import (
    UNLABELLED,
    Batch,
    Card,
    NonNegative,
    Objective,
    Objectives,
    Outputs,
    Scheme,
    Teacher,
    Update,
    item_weights,
    mean,
    to_float32,
)
from instil.functional.critic_losses import (
    CriticForm,
    critic_loss,
    generator_loss,
    gradient_penalty,
)
from instil.items import replace_invalid
from instil.modules.critics import apply_spectral_norm, default_critic, spectral_norms
from instil.modules.stage_adapter import StageAdapter
from instil.schemes.bases.critic_options import (
    Condition,
    CriticNet,
    CriticRole,
    Penalty,
    PenaltyEvery,
    SpectralNorm,
)


class Adversarial(Scheme):
    """Student trained to produce outputs that a critic cannot separate from the teacher's.

    There are two learners (Xu et al. 2018): the critic, and the student, whose losses are the
    objectives and the adversarial loss. Each step updates the critic first, and the student then
    faces the updated critic.
    """

    card = Card(
        "Training shallow and thin networks with conditional adversarial networks",
        "https://arxiv.org/abs/1709.00513",
        "ICLR Workshop",
        2018,
        source="offline",
        algorithms=("adversarial",),
        holds_graph=True,
        deviations="The paper's critic also classifies its input; here condition gives it the "
        "label, and it only separates teacher from student. Spectral norm (Miyato et al. 2018) "
        "runs its one power iteration after each step. R1 is that of Mescheder et al. 2018, and "
        "its lazy form, once in several steps, that of Karras et al. 2020.",
        equation=r"\min_s \mathcal{L}_{obj} + \lambda\, \mathbb{E}\, "
        r"\mathrm{softplus}(-D(z^s)), \quad \min_D \mathbb{E}\, [\mathrm{softplus}(-D(z^t)) + "
        r"\mathrm{softplus}(D(z^s))] + \tfrac{\gamma}{2} \mathbb{E} \Vert \nabla D(z^t) \Vert^2",
        use="When the student cannot match the teacher's outputs one by one, but can match their "
        "distribution: features of a far smaller network, dense outputs. Combine it with another "
        "objective, such as kd. It needs no labels.",
        pitfalls="Critic and student must stay in balance. In the logs the critic's loss starts "
        "at 1.39 (hinge: 2). Near 0 the critic has won and its gradient carries little "
        "information: lower its learning rate (optimizers.critic.lr), or use spectral_norm or a "
        "penalty (1 to 10). If the loss stays at 1.39, the critic separates nothing: raise its "
        "learning rate. A teacher's logits are far sharper than those of a new student, so a "
        "critic of logits wins at once. The adversarial loss alone does not bind a sample to its "
        "own output. The hinge form has no lower bound. A penalty rules out sharding.",
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        critic: CriticNet = None,
        role: CriticRole = "logits",
        weight: Annotated[NonNegative, Doc("weight of the student's adversarial loss")] = 0.1,
        form: Annotated[CriticForm, Doc("form of the losses of critic and student")] = (
            "non_saturating"
        ),
        condition: Condition = "none",
        spectral_norm: SpectralNorm = False,
        penalty: Penalty = 0.0,
        penalty_every: PenaltyEvery = 1,
    ):
        super().__init__(student, teacher, objectives)
        self.critic = critic
        self.role = role
        self.weight = weight
        self.form = form
        self.condition = condition
        self.spectral_norm = spectral_norm
        self.penalty = penalty
        self.penalty_every = penalty_every
        self.bridge: nn.Module = nn.Identity()
        self.classes = 0
        self.learners["student"] += ("bridge",)
        self.learners["critic"] = ("critic",)

    def sharding_obstacle(self) -> str | None:
        """Reason why the nets cannot be sharded; None without a penalty."""
        return "differentiates the critic twice" if self.penalty else None

    def build(self, batch: Batch) -> None:
        # Both networks run before the objectives restrict the teacher's roles: the critic may read
        # a role that no objective reads.
        student, teacher = self.student(batch), self.teacher_outputs(batch)
        super().build(batch)
        student_input = self._critic_input(student, "student")
        teacher_input = self._critic_input(teacher, "teacher")
        if student_input.shape != teacher_input.shape:
            if self.role == "logits":
                raise ValueError(
                    f"scheme.role: 'logits' has width {student_input.shape[-1]} in the student and "
                    f"{teacher_input.shape[-1]} in the teacher. Expected equal widths. Choose "
                    "another role, whose widths a learned map adapts"
                )
            self.bridge = StageAdapter(student_input, teacher_input)
        if self.condition == "label":
            self.classes = _num_classes(student, batch)
        conditioned = self._append_class(teacher_input, batch)
        critic = default_critic(conditioned) if self.critic is None else self.critic
        self.critic = critic.to(conditioned.device)
        if self.spectral_norm:
            apply_spectral_norm(self.critic)

    def teacher_roles(self) -> set[str]:
        return super().teacher_roles() | {self.role}

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        num_items = item_weights(batch).sum()
        counts = {**super().counts(batch), "critic": num_items, "fool": num_items}
        if self._is_penalized(batch):
            counts["penalty"] = num_items
        return counts

    def step(self, batch: Batch) -> Iterator[Update]:
        teacher = self.teacher_outputs(batch)
        student = self.student(batch)
        weight = item_weights(batch)
        fake = self.bridge(replace_invalid(self._critic_input(student, "student"), batch))
        real = replace_invalid(self._critic_input(teacher, "teacher"), batch)
        # Detached: the critic's backward pass must not free the graph of the student, which the
        # second update needs.
        yield Update(self._critic_losses(real, fake.detach(), batch), "critic")
        update = self.objectives(student, teacher, batch)
        # Scored after the yield: the critic has been updated in between, and the student faces the
        # new one.
        update.losses["fool"] = self.weight * mean(
            generator_loss(self._score(fake, batch), self.form), weight
        )
        yield update

    def after_step(self, gathered_rows: dict[str, Tensor]) -> None:
        super().after_step(gathered_rows)
        assert self.critic is not None
        # One power iteration per optimizer step, not per forward pass: a step must not change
        # state.
        for norm, original in spectral_norms(self.critic):
            norm.follow(original)

    def _critic_losses(self, real: Tensor, fake: Tensor, batch: Batch) -> dict[str, Tensor]:
        weight = item_weights(batch)
        is_penalized = self._is_penalized(batch)
        # A leaf of its own: R1 differentiates the score with respect to the critic's input.
        real = real.detach().requires_grad_(is_penalized)
        score = self._score(real, batch)
        losses = {"critic": mean(critic_loss(score, self._score(fake, batch), self.form), weight)}
        if is_penalized:
            losses["penalty"] = (
                self.penalty
                * self.penalty_every
                * mean(gradient_penalty(score, real, weight.ndim), weight)
            )
        return losses

    def _is_penalized(self, batch: Batch) -> bool:
        return self.penalty > 0 and int(batch.get("step", 0)) % self.penalty_every == 0

    def _critic_input(self, outputs: Outputs, side: str) -> Tensor:
        """Input of the critic in float32: the role, or its deepest level."""
        if self.role not in outputs:
            raise ValueError(
                f"scheme.role: the critic reads '{self.role}' of the {side}, which outputs "
                f"{', '.join(outputs) or 'nothing'}"
            )
        value = outputs[self.role]
        return to_float32(value[-1] if isinstance(value, tuple) else value)

    def _append_class(self, values: Tensor, batch: Batch) -> Tensor:
        """Values with the one-hot class of each item as further channels, if conditioned."""
        if self.condition == "none":
            return values
        label = batch["label"]
        is_labelled = (label != UNLABELLED).unsqueeze(-1)
        # -100 is not a valid index; the mask turns the vector of such an item into zeros.
        one_hot = F.one_hot(label.clamp_min(0), self.classes).to(values.dtype) * is_labelled
        axis = 1 if values.ndim == 4 else -1
        positions = (1,) * (values.ndim - one_hot.ndim)
        if axis == 1:
            one_hot = one_hot.view(*one_hot.shape, *positions)
        else:
            one_hot = one_hot.view(*one_hot.shape[:-1], *positions, self.classes)
        shape = list(values.shape)
        shape[axis] = self.classes
        return torch.cat([values, one_hot.expand(shape)], axis)

    def _score(self, values: Tensor, batch: Batch) -> Tensor:
        """Critic score of each item; the mean over the positions of an item."""
        assert self.critic is not None
        score = to_float32(self.critic(self._append_class(values, batch)))
        item_dims = item_weights(batch).ndim
        return score.flatten(item_dims).mean(-1) if score.ndim > item_dims else score


def _num_classes(student: Outputs, batch: Batch) -> int:
    """Number of classes of a critic that is conditioned on the label."""
    has_labels = "label" in batch and not batch["label"].is_floating_point()
    if not has_labels or "logits" not in student:
        raise ValueError(
            "scheme.condition: the critic is shown class labels. Expected class indices 'label' in "
            f"the batch and 'logits' of the student, got {', '.join(batch)} in the batch and "
            f"{', '.join(student)} of the student. Set condition: none"
        )
    return int(student["logits"].shape[-1])
