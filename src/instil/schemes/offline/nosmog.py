"""NOSMOG: the student also learns from adversarial noise on the features of the nodes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import (
    UNLABELLED,
    Batch,
    Card,
    Objective,
    Objectives,
    Outputs,
    Positive,
    Scheme,
    Teacher,
    Update,
    item_weights,
    mean,
)
from instil.functional.keyed_random import keyed_uniform
from instil.functional.robust_losses import label_loss, soft_label_loss
from instil.items import replace_invalid
from instil.modules.eval_mode import eval_mode

NO_TAPS: frozenset[str] = frozenset()


class NOSMOG(Scheme):
    """Learning of noise-robust, structure-aware perceptrons on graphs (Tian et al. 2023).

    This is the third part of the method. Its other parts are position features
    (``data.positions``) and the objective ``gsp``. Each step searches the noise within ``epsilon``
    that raises the student's loss most. The loss ``adversarial`` is that of the student on the
    features with this noise: the divergence from the teacher's output for the node without noise,
    and the cross-entropy of labelled nodes.
    """

    card = Card(
        "Learning MLPs on graphs: a unified view of effectiveness, robustness, and efficiency",
        "https://openreview.net/forum?id=Cs3r5KLdoj",
        "ICLR",
        2023,
        source="offline",
        algorithms=("graph", "adversarial"),
        tasks=("node_classification",),
        labels=("single",),
        equation=r"\mathcal{L}_{obj} + w \Big( \mathrm{KL}\left( p^t(x) \Vert p^s(x + \delta) "
        r"\right) + \mathrm{CE}\left( y, p^s(x + \delta) \right) \Big), \quad \delta = "
        r"\arg\max_{\Vert \delta \Vert_\infty \le \epsilon} \ldots",
        use="For a student without edges (GLNN) whose features are noisy. With position features "
        "and gsp it is the whole method.",
        pitfalls="Every step runs the student attack_steps + 1 more times. The scale of epsilon is "
        "that of the features: the published values are 0.005 to 0.1. "
        "The passes on features with and without noise both update the running statistics of "
        "BatchNorm, as in the authors' code.",
        deviations="The student is in evaluation mode during the attack, so dropout does not "
        "change between its steps. One noise raises both losses of a node; the authors' code "
        "searches one for each loss.",
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        weight: Annotated[Positive, Doc("factor w of the loss adversarial")] = 0.1,
        epsilon: Annotated[Positive, Doc("largest change of a feature")] = 0.04,
        attack_steps: Annotated[
            int, Ge(1), Doc("steps of the search, each changes a feature by a quarter of epsilon")
        ] = 5,
        input: Annotated[
            str, Doc("batch key of the features that the student reads, such as x_positions")
        ] = "x",
    ):
        super().__init__(student, teacher, objectives)
        self.weight = weight
        self.epsilon = epsilon
        self.attack_steps = attack_steps
        self.input = input

    def build(self, batch: Batch) -> None:
        if self.teacher is None:
            raise ValueError("teacher: nosmog needs a teacher")
        features: Tensor = batch.get(self.input, torch.empty(0))
        if features.ndim != 2 or not features.is_floating_point():
            raise ValueError(
                f"scheme.input: '{self.input}' holds no features. Expected the key of an array "
                f"(n, F) of floating-point numbers, got a batch with {', '.join(batch)}"
            )
        super().build(batch)
        clean: Outputs = self.teacher_outputs(batch)
        # Called for its error about a student that reads other features.
        self._sign(batch, clean["logits"], features)

    def teacher_roles(self) -> set[str]:
        return super().teacher_roles() | {"logits"}

    def before_step(self, batch: Batch) -> Batch:
        """Add ``clean_outputs`` of the teacher, and ``noisy``, the features with the noise."""
        clean = self.teacher_outputs(batch)
        features: Tensor = batch[self.input]
        width = features.shape[1]
        start = keyed_uniform(batch, width, "scheme.nosmog_start").to(features.dtype)
        noise = self.epsilon * (2 * start - 1)
        # In training mode dropout would change the network between the steps of the search.
        with eval_mode(self.student):
            for _ in range(self.attack_steps):
                sign = self._sign(batch, clean["logits"], features + noise)
                noise = noise + self.epsilon / 4 * sign
                noise = noise.clamp(-self.epsilon, self.epsilon)
        return batch | {"clean_outputs": clean, "noisy": features + noise}

    def _sign(self, batch: Batch, teacher_logits: Tensor, features: Tensor) -> Tensor:
        """Sign of the gradient of the student's loss by the features."""
        with torch.enable_grad():
            leaf = features.detach().requires_grad_()
            values = self._losses(batch, teacher_logits, leaf)
            total = torch.where(item_weights(batch) > 0, values, 0.0).sum()
            (gradient,) = torch.autograd.grad(total, leaf, allow_unused=True)
        if gradient is None:
            raise ValueError(
                f"scheme.input: the student does not read '{self.input}'. Expected the key of "
                "student.reads"
            )
        return gradient.sign()

    def _losses(self, batch: Batch, teacher_logits: Tensor, features: Tensor) -> Tensor:
        """Loss of each node (n,) for other features of the student."""
        changed = batch | {self.input: features}
        logits = self.student(changed, roles=NO_TAPS)["logits"]
        logits = replace_invalid(logits, batch)
        values = soft_label_loss(logits, replace_invalid(teacher_logits, batch))
        label: Tensor | None = batch.get("label")
        if label is None:
            return values
        is_labelled = label != UNLABELLED
        errors = label_loss(logits, torch.where(is_labelled, label, 0))
        return values + torch.where(is_labelled, errors, 0.0)

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        return {**super().counts(batch), "adversarial": item_weights(batch).sum()}

    def step(self, batch: Batch) -> Iterator[Update]:
        yield self.compute_losses(batch)

    def compute_losses(self, batch: Batch) -> Update:
        """Return the objectives' update with the loss ``adversarial``."""
        teacher: Outputs = batch["clean_outputs"]
        update: Update = self.objectives(self.student(batch), teacher, batch)
        values = self._losses(batch, teacher["logits"], batch["noisy"])
        update.losses["adversarial"] = self.weight * mean(values, item_weights(batch))
        return update
