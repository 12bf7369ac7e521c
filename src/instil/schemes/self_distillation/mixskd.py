"""Self-distillation between the mixed predictions of two images and those of their mixture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import (
    Batch,
    Card,
    LabelObjective,
    NonNegative,
    Objective,
    Objectives,
    Outputs,
    Positive,
    Update,
    first_tensor,
    item_weights,
    mean,
    replace_invalid,
    to_float32,
)
from instil.functional.mixup_losses import discriminator_loss, mixed_label_loss
from instil.functional.pooling import global_average_pool
from instil.schemes.bases.branches import Branch, BranchedScheme, stage_features

HIDDEN = 128
"""Width of the hidden layer of a discriminator."""


class MapBranch(Branch):
    """A branch that also returns its feature map."""

    def forward(self, stage: Tensor) -> Outputs:
        feature_map = self.body(stage)
        embedding = global_average_pool(feature_map)
        return {"logits": self.head(embedding), "embedding": embedding, "map": feature_map}


class MixSKD(BranchedScheme):
    """Self-distillation from mixup (Yang et al. 2022).

    The student and a branch after each stage but the last see each sample, its partner and the
    mixture of both. The interpolation of the outputs for the two samples and the outputs for the
    mixture teach each other. A linear self-teacher on the feature maps of all branches teaches the
    student's own classifier. The student is exported without branches and self-teacher.

    The batch needs ``partner_image`` and ``partner_label``, or ``partner_`` and the name of another
    first tensor: ``data.augment.partner: true`` in a recipe. The objectives are cross_entropy, for
    the samples themselves, and kd (T = 3).

    Raises:
        ValueError: without a partner in the batch, or for an objective that reads both a teacher
            and labels.
    """

    card = Card(
        "MixSKD: Self-Knowledge Distillation from Mixup for Image Recognition",
        "https://arxiv.org/abs/2208.05768",
        "ECCV",
        2022,
        source="self",
        labels=("single",),
        deviations="Checked against the authors' code, not against the text of the paper. The partner is any "
        "training sample, drawn by seed, sample and view, so that results do not depend on how a batch is cut; "
        "in the code it is another sample of the batch. Each step therefore runs on three images per sample, in "
        "the code on two. The code adds the label loss of mixtures for ImageNet; for CIFAR it computes this loss "
        "and leaves it out (mixture_label_weight: 0), so that its self-teacher is not trained. The code keeps the "
        "discriminators in a plain list, so that they are not trained (train_discriminators: false). A branch is two "
        "convolutions without BatchNorm; the code repeats the residual stages.",
        equation=r"\sum_i \mathrm{CE}(z^i(x), y) + \lambda\, \mathrm{CE}(\hat z, y) + (1 - \lambda)\, \mathrm{CE}(\hat z, y') "
        r"+ T^2 \sum_i \left( \mathrm{KL}(\hat p^i \Vert \tilde p^i) + \mathrm{KL}(\tilde p^i \Vert \hat p^i) \right) "
        r"+ \sum_i \Vert \tilde f^i - \hat f^i \Vert^2 + \mathcal{L}_{dis}, \quad "
        r"\hat z = z(\lambda x + (1 - \lambda) x'), \; \tilde z = \lambda z(x) + (1 - \lambda) z(x')",
        use="Image classification without a teacher, where mixup helps.",
        pitfalls="A step takes about three times as long as that of the student alone, plus the branches. The network and the "
        "discriminators minimise the same loss: there is no gradient reversal, so that the term works against the feature loss.",
    )

    def __init__(
        self,
        student: nn.Module,
        objectives: Objectives | Mapping[str, Objective],
        mixup_alpha: Annotated[
            Positive, Doc("parameter of the symmetric Beta distribution of the mixing share")
        ] = 0.4,
        mixture_label_weight: Annotated[
            NonNegative,
            Doc(
                "weight of the label loss of mixtures and of the self-teacher; 0: the self-teacher is not trained"
            ),
        ] = 1.0,
        feature_weight: Annotated[
            NonNegative, Doc("weight of the mean squared difference of the feature maps")
        ] = 1.0,
        discriminator_weight: Annotated[
            NonNegative, Doc("weight of the loss of the discriminators")
        ] = 1.0,
        train_discriminators: Annotated[
            bool, Doc("train the discriminators; false: keep their initial weights")
        ] = True,
    ):
        super().__init__(student, objectives)
        self.mixup_alpha = mixup_alpha
        self.mixture_label_weight = mixture_label_weight
        self.feature_weight = feature_weight
        self.discriminator_weight = discriminator_weight
        self.train_discriminators = train_discriminators
        self.self_teacher: nn.Sequential | None = None
        self.discriminators = nn.ModuleList()
        self.learners["student"] += ("self_teacher", "discriminators")

    def branch_stages(self, stages: int) -> list[int]:
        return list(range(stages - 1))

    def make_branches(self, stages: tuple[Tensor, ...], classes: int) -> list[nn.Module]:
        return [MapBranch(stage, stages[-1], classes) for stage in stages[:-1]]

    def build(self, batch: Batch) -> None:
        for name, objective in self.objectives.named():
            if isinstance(objective, LabelObjective) and any(objective.needs["teacher"]):
                raise ValueError(
                    f"objectives.{name}: a mixture has two labels. Expected objectives that read labels "
                    f"or a teacher, got {type(objective).__name__}, which reads both. Use kd"
                )
        outputs = self.student(batch)
        stages, logits = stage_features(outputs), to_float32(outputs["logits"])
        if logits.ndim != 2:
            raise ValueError(
                f"scheme: branches classify whole samples. Expected logits (N, C), got {tuple(logits.shape)}"
            )
        self.branches.extend(self.make_branches(stages, logits.shape[1]))
        ends = self.branch_outputs(outputs)
        width = ends[0]["embedding"].shape[1]
        self.self_teacher = nn.Sequential(
            nn.Linear(len(ends) * width, width, bias=False), nn.Linear(width, logits.shape[1])
        ).to(logits)
        self.self_teacher.requires_grad_(self.mixture_label_weight > 0)
        for _ in ends if self.discriminator_weight else ():
            layers = nn.Linear(width, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 2)
            self.discriminators.append(nn.Sequential(*layers).to(logits))
        self.discriminators.requires_grad_(self.train_discriminators)
        self.objectives.build(ends[0], {"logits": ends[0]["logits"]})

    def branch_outputs(self, outputs: Outputs) -> list[Outputs]:
        """Logits, pooled embedding and feature map of the student's end and the branches."""
        stages = stage_features(outputs)
        deepest = to_float32(stages[-1])
        own = {
            "logits": outputs["logits"],
            "embedding": global_average_pool(deepest),
            "map": deepest,
        }
        branches = zip(self.branches, stages[:-1], strict=True)
        return [own, *(branch(stage) for branch, stage in branches)]

    def before_step(self, batch: Batch) -> Batch:
        """Add the mixtures and their ``share``, which is the same for the whole step."""
        key = _first_key(batch)
        if missing := [name for name in (f"partner_{key}", "partner_label") if name not in batch]:
            raise ValueError(
                f"scheme: each sample is mixed with another one. Expected '{missing[0]}' in the batch, got "
                f"{', '.join(batch)}. Set data.augment.partner: true, or let the loader add it"
            )
        seed, step = int(batch.get("seed", 0)), int(batch.get("step", 0))
        # Keyed by seed and step: every micro-batch and rank draws the same share.
        share = float(np.random.default_rng((seed, step)).beta(self.mixup_alpha, self.mixup_alpha))
        mixture = torch.lerp(batch[f"partner_{key}"], batch[key], share)
        return batch | {"mixture": mixture, "share": torch.tensor(share)}

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        counts = super().counts(batch)
        num_items = item_weights(batch).sum()
        if self.mixture_label_weight:
            counts["mixture_labels"] = num_items
        if self.feature_weight:
            counts["mixture_features"] = num_items
        if self.discriminator_weight:
            counts["discriminator"] = num_items
        return counts

    def compute_losses(self, batch: Batch) -> Update:
        key, share = _first_key(batch), float(batch["share"])
        # One forward pass: BatchNorm sees samples, partners and mixtures together.
        inputs = torch.cat([batch[key], batch[f"partner_{key}"], batch["mixture"]])
        ends = self.branch_outputs(self.student({key: inputs}))
        plain, mixed, mixtures = [], [], []
        for end in ends:
            parts = [
                {role: replace_invalid(part, batch) for role, part in part_of.items()}
                for part_of in _thirds(end)
            ]
            plain.append(parts[0])
            mixed.append({role: torch.lerp(parts[1][role], parts[0][role], share) for role in end})
            mixtures.append(parts[2])
        update = self._objectives_of_ends(plain, mixed, mixtures, batch)
        update.losses |= self._own_losses(mixed, mixtures, share, batch)
        return update

    def _objectives_of_ends(
        self, plain: list[Outputs], mixed: list[Outputs], mixtures: list[Outputs], batch: Batch
    ) -> Update:
        """Objectives without a teacher on the samples, the others between mixtures and mixed outputs."""
        on_samples = [self.objectives(end, _fixed_logits(end), batch) for end in plain]
        pairs = [
            (mixed[0], {"logits": self._self_teacher_logits(mixtures).detach()}),
            (mixtures[0], {"logits": self._self_teacher_logits(mixed).detach()}),
        ]
        for mixed_end, mixture_end in zip(mixed[1:], mixtures[1:], strict=True):
            pairs.append((mixed_end, _fixed_logits(mixture_end)))
            pairs.append((mixture_end, _fixed_logits(mixed_end)))
        between = [self.objectives(student, teacher, batch) for student, teacher in pairs]
        losses = {}
        for name, objective in self.objectives.named():
            updates = between if any(objective.needs["teacher"]) else on_samples
            losses[name] = torch.stack([update.losses[name] for update in updates]).sum()
        return Update(losses, "student", on_samples[0].state_updates)

    def _own_losses(
        self, mixed: list[Outputs], mixtures: list[Outputs], share: float, batch: Batch
    ) -> dict[str, Tensor]:
        weight = item_weights(batch)
        losses = {}
        if self.mixture_label_weight:
            logits = [end["logits"] for end in mixtures]
            logits += [self._self_teacher_logits(ends) for ends in (mixed, mixtures)]
            labels = batch["label"], batch["partner_label"]
            values = [mixed_label_loss(value, *labels, share, "none") for value in logits]
            total = torch.stack(values).sum(0)
            losses["mixture_labels"] = self.mixture_label_weight * mean(total, weight)
        ends = list(zip(mixed, mixtures, strict=True))
        if self.feature_weight:
            squares = [(one["map"] - other["map"]).square() for one, other in ends]
            total = torch.stack([square.flatten(1).mean(1) for square in squares]).sum(0)
            losses["mixture_features"] = self.feature_weight * mean(total, weight)
        if self.discriminator_weight:
            values = []
            for discriminator, (one, other) in zip(self.discriminators, ends, strict=True):
                scores = discriminator(one["embedding"]), discriminator(other["embedding"])
                values.append(discriminator_loss(*scores, "none"))
            total = torch.stack(values).sum(0)
            losses["discriminator"] = self.discriminator_weight * mean(total, weight)
        return losses

    def _self_teacher_logits(self, ends: list[Outputs]) -> Tensor:
        """Logits (N, C) of the self-teacher: convolution 1x1, pooling and classifier are linear."""
        assert self.self_teacher is not None
        logits: Tensor = self.self_teacher(torch.cat([end["embedding"] for end in ends], 1))
        return logits


def _first_key(batch: Batch) -> str:
    """Key of the first tensor of the batch, which the network reads."""
    value = first_tensor(batch)
    return next(key for key, other in batch.items() if other is value)


def _thirds(end: Outputs) -> list[Outputs]:
    """Outputs of one end for the samples, the partners and the mixtures."""
    chunks = {role: value.chunk(3) for role, value in end.items()}
    return [{role: parts[part] for role, parts in chunks.items()} for part in range(3)]


def _fixed_logits(end: Outputs) -> Outputs:
    return {"logits": end["logits"].detach()}
