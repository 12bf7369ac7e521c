"""MixSKD: self-distillation between mixed predictions of two images and those of their mixture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import (
    Batch,
    Card,
    NonNegative,
    Objective,
    Objectives,
    Outputs,
    Positive,
    Update,
    item_weights,
    mean,
    to_float32,
)
from instil.functional.mixup_losses import discriminator_loss, mixed_label_loss
from instil.functional.pooling import global_average_pool
from instil.items import replace_invalid_outputs
from instil.schemes.bases.branches import Branch, BranchedScheme, stage_features
from instil.schemes.bases.mixup import first_key, mix_with_partner, split_thirds

HIDDEN = 128
"""Width of the hidden layer of a discriminator."""


class FeatureMapBranch(Branch):
    """A branch that also returns its feature map, as ``map``."""

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
        deviations="Checked against the authors' code, not against the text of the paper. The "
        "partner is any training sample, drawn by seed, sample and view, so that results do not "
        "depend on how a batch is split; in the code it is another sample of the batch. Each step "
        "therefore runs on three images per sample, in the code on two. The code adds the label "
        "loss of mixtures for ImageNet; for CIFAR it computes this loss and leaves it out "
        "(mixture_label_weight: 0), so its self-teacher is not trained. The code keeps the "
        "discriminators in a plain list, so they are not trained (train_discriminators: false). A "
        "branch is two convolutions without BatchNorm; the code repeats the residual stages.",
        equation=r"\sum_i \mathrm{CE}(z^i(x), y) + \lambda\, \mathrm{CE}(\hat z, y) + "
        r"(1 - \lambda)\, \mathrm{CE}(\hat z, y') + T^2 \sum_i \left( "
        r"\mathrm{KL}(\hat p^i \Vert \tilde p^i) + \mathrm{KL}(\tilde p^i \Vert \hat p^i) \right) "
        r"+ \sum_i \Vert \tilde f^i - \hat f^i \Vert^2 + \mathcal{L}_{dis}, \quad "
        r"\hat z = z(\lambda x + (1 - \lambda) x'), \; "
        r"\tilde z = \lambda z(x) + (1 - \lambda) z(x')",
        use="For image classification without a teacher, where mixup helps.",
        pitfalls="A step takes about three times as long as that of the plain student, plus the "
        "branches. The network and the discriminators minimise the same loss: there is no gradient "
        "reversal, so the term works against the feature loss.",
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
                "weight of the label loss of mixtures and of the self-teacher; 0: the self-teacher "
                "is not trained"
            ),
        ] = 1.0,
        feature_weight: Annotated[
            NonNegative, Doc("weight of the mean squared difference of the feature maps")
        ] = 1.0,
        discriminator_weight: Annotated[NonNegative, Doc("weight of the discriminator loss")] = 1.0,
        train_discriminators: Annotated[bool, Doc("train the discriminators; false: fixed")] = True,
    ):
        super().__init__(student, objectives)
        self.mixup_alpha = mixup_alpha
        self.mixture_label_weight = mixture_label_weight
        self.feature_weight = feature_weight
        self.discriminator_weight = discriminator_weight
        self.train_discriminators = train_discriminators
        self.trains_self_teacher = bool(mixture_label_weight)  # true for a schedule from zero
        self.has_discriminators = bool(discriminator_weight)
        self.self_teacher: nn.Sequential | None = None
        self.discriminators = nn.ModuleList()
        self.learners["student"] += ("self_teacher", "discriminators")

    def branch_stages(self, stages: int) -> list[int]:
        return list(range(stages - 1))

    def make_branches(self, stages: tuple[Tensor, ...], classes: int) -> list[nn.Module]:
        return [FeatureMapBranch(stage, stages[-1], classes) for stage in stages[:-1]]

    def build(self, batch: Batch) -> None:
        for name, objective in self.objectives.named():
            if objective.items.labelled and any(objective.needs["teacher"]):
                raise ValueError(
                    f"objectives.{name}: a mixture has two labels. Expected objectives that read "
                    f"labels or a teacher, got {type(objective).__name__}, which reads both. Use kd"
                )
        outputs = self.student(batch)
        logits = to_float32(outputs["logits"])
        if logits.ndim != 2:
            raise ValueError(
                "scheme: branches classify whole samples. Expected logits (N, C), got "
                f"{tuple(logits.shape)}"
            )
        self.branches.extend(self.make_branches(stage_features(outputs), logits.shape[1]))
        ends = self.branch_outputs(outputs)
        width = ends[0]["embedding"].shape[1]
        first = nn.Linear(len(ends) * width, width, bias=False)
        self.self_teacher = nn.Sequential(first, nn.Linear(width, logits.shape[1])).to(logits)
        # Without its label loss nothing trains the self-teacher, as in the authors' code for CIFAR.
        self.self_teacher.requires_grad_(self.trains_self_teacher)
        for _ in ends if self.has_discriminators else ():
            layers = nn.Linear(width, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 2)
            self.discriminators.append(nn.Sequential(*layers).to(logits))
        self.discriminators.requires_grad_(self.train_discriminators)
        self.objectives.build(ends[0], {"logits": ends[0]["logits"]})

    def branch_outputs(self, outputs: Outputs) -> list[Outputs]:
        """Compute logits, pooled embedding and feature map of the student and the branches."""
        stages = stage_features(outputs)
        deepest = to_float32(stages[-1])
        student_end = {
            "logits": outputs["logits"],
            "embedding": global_average_pool(deepest),
            "map": deepest,
        }
        branches = zip(self.branches, stages[:-1], strict=True)
        return [student_end, *(branch(stage) for branch, stage in branches)]

    def before_step(self, batch: Batch) -> Batch:
        """Add the mixtures and their ``share``, which is the same for the whole step."""
        return mix_with_partner(batch, self.mixup_alpha)

    def _loss_weights(self) -> dict[str, float]:
        """Weights of the losses of the scheme itself, without those that are 0."""
        weights = {
            "mixture_labels": self.mixture_label_weight,
            "mixture_features": self.feature_weight,
            "discriminator": self.discriminator_weight,
        }
        return {name: weight for name, weight in weights.items() if weight}

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        num_items = item_weights(batch).sum()
        return {**super().counts(batch), **dict.fromkeys(self._loss_weights(), num_items)}

    def compute_losses(self, batch: Batch) -> Update:
        key = first_key(batch)
        share = float(batch["share"])
        # One forward pass: BatchNorm sees samples, partners and mixtures together.
        inputs = torch.cat([batch[key], batch[f"partner_{key}"], batch["mixture"]])
        ends = self.branch_outputs(self.student({key: inputs}))
        plain, mixed, mixtures = [], [], []
        for end in ends:
            thirds = split_thirds(end)
            parts = [replace_invalid_outputs(third, batch, tuple(third)) for third in thirds]
            plain.append(parts[0])
            mixed.append({role: torch.lerp(parts[1][role], parts[0][role], share) for role in end})
            mixtures.append(parts[2])
        update = self._objectives_of_ends(plain, mixed, mixtures, batch)
        update.losses |= self._own_losses(mixed, mixtures, share, batch)
        return update

    def _objectives_of_ends(
        self, plain: list[Outputs], mixed: list[Outputs], mixtures: list[Outputs], batch: Batch
    ) -> Update:
        """Objectives without a teacher on the samples, the others between the two mixed outputs."""
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
        weights = self._loss_weights()
        ends = list(zip(mixed, mixtures, strict=True))
        terms: dict[str, list[Tensor]] = {}
        if "mixture_labels" in weights:
            logits = [end["logits"] for end in mixtures]
            logits += [self._self_teacher_logits(outputs) for outputs in (mixed, mixtures)]
            labels = batch["label"], batch["partner_label"]
            terms["mixture_labels"] = [mixed_label_loss(z, *labels, share, "none") for z in logits]
        if "mixture_features" in weights:
            squares = [(one["map"] - other["map"]).square() for one, other in ends]
            terms["mixture_features"] = [square.flatten(1).mean(1) for square in squares]
        if "discriminator" in weights:
            terms["discriminator"] = []
            for discriminator, (one, other) in zip(self.discriminators, ends, strict=True):
                scores = discriminator(one["embedding"]), discriminator(other["embedding"])
                terms["discriminator"].append(discriminator_loss(*scores, "none"))
        return {
            name: weights[name] * mean(torch.stack(values).sum(0), item_weights(batch))
            for name, values in terms.items()
        }

    def _self_teacher_logits(self, ends: list[Outputs]) -> Tensor:
        """Logits (N, C) of the self-teacher: convolution 1x1, pooling and classifier are linear."""
        assert self.self_teacher is not None
        logits: Tensor = self.self_teacher(torch.cat([end["embedding"] for end in ends], 1))
        return logits


def _fixed_logits(end: Outputs) -> Outputs:
    return {"logits": end["logits"].detach()}
