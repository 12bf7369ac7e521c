"""A critic tells the student's answers from the teacher's; the student learns to fool it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.nn import functional as F

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
    replace_invalid,
    to_float32,
)
from instil.functional.critic_losses import (
    CriticForm,
    critic_loss,
    generator_loss,
    gradient_penalty,
)
from instil.modules.critics import apply_spectral_norm, default_critic, spectral_norms
from instil.modules.stage_adapter import StageAdapter


class Adversarial(Scheme):
    """Two learners: a critic of both nets' answers, and a student that is also trained to pass for the teacher (Xu et al. 2018). The critic is
    updated first, and the student faces the critic after its update.

    ``critic``: any net from what it sees to one score (each place of it); by default two layers of 64.
    ``role``: what it sees: logits (..., C), embedding (N, D), or the deepest of features, maps or tokens; other widths than the teacher's are led
    to them by a learned map, but for logits.
    ``weight``: of the student's adversarial loss.
    ``form``: of both losses.
    ``condition``: label shows the critic which class an item should be, as further channels; all zero where there is no label.
    ``spectral_norm``: whether each layer of the critic has largest singular value 1, so that it cannot grow steep.
    ``penalty``: weight of half the squared gradient of the critic's score by the teacher's answers (R1).
    ``penalty_every``: how many steps lie between two penalties, which then count as many times.
    """

    card = Card(
        "Training shallow and thin networks with conditional adversarial networks",
        "https://arxiv.org/abs/1709.00513",
        "ICLR Workshop",
        2018,
        source="offline",
        algorithms=("adversarial",),
        holds_graph=True,
        deviations="The paper's critic also classifies what it sees; here condition shows it the label, and it only tells real from fake. Spectral "
        "norm (Miyato et al. 2018) takes its one power iteration after each step, R1 is that of Mescheder et al. 2018, and every so many steps "
        "that of Karras et al. 2020.",
        equation=r"\min_s \mathcal{L}_{obj} + \lambda\, \mathbb{E}\, \mathrm{softplus}(-D(z^s)), \quad "
        r"\min_D \mathbb{E}\, [\mathrm{softplus}(-D(z^t)) + \mathrm{softplus}(D(z^s))] + \tfrac{\gamma}{2} \mathbb{E} \Vert \nabla D(z^t) \Vert^2",
        use="Where the student cannot reach the teacher's answers one by one, but their distribution: features of a far smaller net, dense outputs. "
        "It stands beside another objective, such as kd, and needs no labels.",
        pitfalls="The two must stay in balance. In the logs the critic's loss starts at 1.39 (hinge: 2): near 0 it has won, and its gradient "
        "says little: lower its learning rate (optimizers.critic.lr), take spectral_norm or a penalty (1 to 10). Where it stays at 1.39 it tells "
        "nothing apart: raise its rate. A teacher's logits are far sharper than a new student's, so that a critic of logits wins at once. The "
        "student's adversarial loss alone does not say which sample gets which answer. The hinge form has no lower bound for the student. With a "
        "penalty it cannot be sharded.",
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        critic: nn.Module | None = None,
        role: str = "logits",
        weight: NonNegative = 0.1,
        form: CriticForm = "non_saturating",
        condition: Literal["none", "label"] = "none",
        spectral_norm: bool = False,
        penalty: NonNegative = 0.0,
        penalty_every: Annotated[int, Ge(1)] = 1,
    ):
        super().__init__(student, teacher, objectives)
        self.critic, self.role, self.weight, self.form, self.condition = (
            critic,
            role,
            weight,
            form,
            condition,
        )
        self.spectral_norm, self.penalty, self.penalty_every = spectral_norm, penalty, penalty_every
        self.bridge: nn.Module = nn.Identity()
        self.classes = 0
        self.supports_sharding = not penalty  # it differentiates the critic twice
        self.learners["student"] += ("bridge",)
        self.learners["critic"] = ("critic",)

    def build(self, batch: Batch) -> None:
        student, teacher = (
            self.student(batch),
            self.teacher_outputs(batch),
        )  # asked first: the objectives may want less of the teacher than the critic
        super().build(batch)
        for side, outputs in (("student", student), ("teacher", teacher)):
            if self.role not in outputs:
                raise ValueError(
                    f"scheme.role: the critic reads '{self.role}' of the {side}, which gives {', '.join(outputs) or 'nothing'}"
                )
        mine, theirs = self._seen(student), self._seen(teacher)
        if mine.shape != theirs.shape:
            if self.role == "logits":
                widths = (
                    f"width {mine.shape[-1]} in the student and {theirs.shape[-1]} in the teacher"
                )
                raise ValueError(
                    f"scheme.role: '{self.role}' has {widths}; a critic needs them equal"
                )
            self.bridge = StageAdapter(mine, theirs)
        if self.condition == "label":
            if (
                "label" not in batch
                or batch["label"].is_floating_point()
                or "logits" not in student
            ):
                raise ValueError(
                    "scheme.condition: the critic is shown class labels, and the student's logits say how many; one of them is missing"
                )
            self.classes = student["logits"].shape[-1]
        shown = self._conditioned(theirs, batch)
        self.critic = (default_critic(shown) if self.critic is None else self.critic).to(
            shown.device
        )
        if self.spectral_norm:
            apply_spectral_norm(self.critic)
        if self.teacher is not None:
            self.teacher.select_roles(self.objectives.reads("teacher") | {self.role}, batch)

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        number = item_weights(batch).sum()
        return {
            **super().counts(batch),
            "critic": number,
            "fool": number,
            **({"penalty": number} if self._penalized(batch) else {}),
        }

    def step(self, batch: Batch) -> Iterator[Update]:
        teacher, student, weight = (
            self.teacher_outputs(batch),
            self.student(batch),
            item_weights(batch),
        )
        fake = self.bridge(replace_invalid(self._seen(student), batch))
        real = replace_invalid(self._seen(teacher), batch)
        yield Update(self._judged(real, fake.detach(), batch), "critic")
        update = self.objectives(student, teacher, batch)
        update.losses["fool"] = self.weight * mean(
            generator_loss(self._score(fake, batch), self.form), weight
        )
        yield update

    def after_step(self, gathered_rows: dict[str, Tensor]) -> None:
        super().after_step(gathered_rows)
        assert self.critic is not None
        for norm, original in spectral_norms(self.critic):
            norm.follow(original)

    def _judged(self, real: Tensor, fake: Tensor, batch: Batch) -> dict[str, Tensor]:
        """The critic's losses."""
        weight, penalized = item_weights(batch), self._penalized(batch)
        real = real.detach().requires_grad_(penalized)
        score = self._score(real, batch)
        losses = {"critic": mean(critic_loss(score, self._score(fake, batch), self.form), weight)}
        if penalized:
            losses["penalty"] = (
                self.penalty
                * self.penalty_every
                * mean(gradient_penalty(score, real, weight.ndim), weight)
            )
        return losses

    def _penalized(self, batch: Batch) -> bool:
        return self.penalty > 0 and int(batch.get("step", 0)) % self.penalty_every == 0

    def _seen(self, outputs: Outputs) -> Tensor:
        """What the critic sees of one side, in full precision."""
        value = outputs[self.role]
        return to_float32(value[-1] if isinstance(value, tuple) else value)

    def _conditioned(self, values: Tensor, batch: Batch) -> Tensor:
        """With the class of each item as further channels, where the critic is shown it."""
        if self.condition == "none":
            return values
        label = batch["label"]
        shown = F.one_hot(label.clamp_min(0), self.classes).to(values.dtype) * (
            label != UNLABELLED
        ).unsqueeze(-1)
        axis = 1 if values.ndim == 4 else -1
        places = (1,) * (values.ndim - shown.ndim)
        shown = (
            shown.view(*shown.shape, *places)
            if axis == 1
            else shown.view(*shown.shape[:-1], *places, self.classes)
        )
        shape = list(values.shape)
        shape[axis] = self.classes
        return torch.cat([values, shown.expand(shape)], axis)

    def _score(self, values: Tensor, batch: Batch) -> Tensor:
        """The critic's score of each item; of features the mean over their places."""
        assert self.critic is not None
        score = to_float32(self.critic(self._conditioned(values, batch)))
        return score.flatten(1).mean(1) if self.role == "features" else score.squeeze(-1)
