"""SFTN: a teacher that is trained together with branches of the student's architecture."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
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
    Scheme,
    Update,
    as_net,
    item_weights,
    mean,
    to_float32,
)
from instil.items import replace_invalid_outputs
from instil.modules.stage_adapter import StageAdapter
from instil.schemes.bases.branches import TRUNK_ROLES, stage_features
from instil.schemes.bases.stage_pairs import StagePairs, resolve_stage_pairs, stage_paths


def sftn_loss(
    branch_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float = 1.0,
    reduction: str = "mean",
) -> Tensor:
    """KL divergence of a branch from the teacher in training (Park et al. 2021).

    ``temperature ** 2 * KL(branch || teacher)``; the gradient reaches both.

    Args:
        branch_logits: (N, C).
        teacher_logits: (N, C).
        temperature: softmax temperature, > 0.
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> sftn_loss(torch.tensor([[1.0, 0.0]]), torch.zeros(1, 2))
        tensor(0.1109)
    """
    if branch_logits.shape != teacher_logits.shape:
        raise ValueError(
            "branch: the branch and the network must have the same classes. Expected logits "
            f"{tuple(teacher_logits.shape)}, got {tuple(branch_logits.shape)}. Set the classes of "
            "branch"
        )
    branch_log_probs = (to_float32(branch_logits) / temperature).log_softmax(-1)
    teacher_log_probs = (to_float32(teacher_logits) / temperature).log_softmax(-1)
    difference = branch_log_probs - teacher_log_probs
    values = temperature**2 * (branch_log_probs.exp() * difference).sum(-1)
    return values.mean() if reduction == "mean" else values


class SFTN(Scheme):
    """Teacher training with branches of the student's architecture (Park et al. 2021).

    After every stage of the teacher but the last, an adapter leads into the rest of a network with
    the student's architecture. The teacher and these branches learn by the objectives, and the loss
    ``friendly`` pulls their outputs together. The teacher is exported without its branches.

    As the ``scheme`` of a recipe's teacher it trains the teacher, which is ``student`` here. The
    objectives are label losses, such as cross_entropy.
    """

    card = Card(
        "Learning Student-Friendly Teacher Networks for Knowledge Distillation",
        "https://arxiv.org/abs/2102.07650",
        "NeurIPS",
        2021,
        source="offline",
        labels=("single",),
        deviations="All branches start with the same weights. The layers of a branch that its "
        "adapter bypasses are run and not trained. The factor T² is an addition; at the default "
        "temperature it is 1. The authors' code and the tables of the paper were not available: "
        "the weights are not checked against them.",
        equation=r"\mathrm{CE}(z, y) + \frac{1}{K} \sum_{i=1}^{K} \left( "
        r"\lambda\, \mathrm{CE}(z^i, y) + \mu\, T^2 \mathrm{KL}(p^i_T \Vert p_T) \right), \quad "
        r"z^i = (f^s_{>i} \circ b_i)(h_i)",
        use="For a teacher that is trained here anyway, for a student of a fixed architecture. Any "
        "distillation method can follow.",
        pitfalls="The accuracy of the teacher itself may fall; judge by the student. With very "
        "small branches a large kl_weight pulls the teacher down to them. The teacher fits one "
        "student: train another teacher for other students.",
    )

    def __init__(
        self,
        student: nn.Module,
        objectives: Objectives | Mapping[str, Objective],
        branch: Annotated[
            nn.Module, Doc("student that the teacher will teach, with the same keys as the student")
        ],
        label_weight: Annotated[
            NonNegative, Doc("weight of the mean loss of the branches by the objectives")
        ] = 1.0,
        kl_weight: Annotated[
            NonNegative, Doc("weight of the mean KL divergence of the branches from the teacher")
        ] = 3.0,
        temperature: Annotated[
            Positive, Doc("softmax temperature of the KL divergence, whose square is a factor")
        ] = 1.0,
        stage_pairs: Annotated[
            StagePairs,
            Doc(
                "pairs [branch's stage, teacher's stage] of ``features``, shallow to deep; auto: "
                "all stages, for networks with the same number of them"
            ),
        ] = "auto",
    ):
        super().__init__(student, None, objectives)
        self.label_weight = label_weight
        self.kl_weight = kl_weight
        self.temperature = temperature
        self.stage_pairs = stage_pairs
        self.matched: list[tuple[int, int]] = []
        self.paths: list[str] = []
        self.branches = nn.ModuleList([as_net(branch)])
        self.bridges = nn.ModuleList()
        self.learners["student"] += ("branches", "bridges")

    def build(self, batch: Batch) -> None:
        outputs = self.student(batch)
        branch_outputs = self.branches[0](batch)
        stages = stage_features(outputs)
        branch_stages = stage_features(branch_outputs)
        # Called for its check of the shapes only.
        sftn_loss(branch_outputs["logits"], outputs["logits"])
        pairs = resolve_stage_pairs(self.stage_pairs, len(branch_stages), len(stages))
        # A branch from the last pair would consist of the classifier only.
        self.matched = pairs[:-1]
        if not self.matched:
            raise ValueError(
                "scheme.stage_pairs: a branch starts after any stage but the last. Expected two or "
                "more pairs, got one. Name more stages in features"
            )
        first = self.branches[0]
        assert not isinstance(first, Tensor)
        paths = stage_paths(as_net(first), "branch")
        self.paths = [paths[branch_stage] for branch_stage, _ in self.matched]
        self.bridges.extend(
            StageAdapter(stages[stage], branch_stages[branch_stage], 3)
            for branch_stage, stage in self.matched
        )
        self.branches.extend(copy.deepcopy(first) for _ in self.matched[1:])
        # The dry run has no gradients, but unreached parameters are those without one.
        with torch.enable_grad():
            for branch, end in zip(self.branches, self.ends(stages, batch), strict=True):
                _freeze_unreached(branch, end["logits"])
        self.objectives.build(outputs, {})

    def ends(self, stages: tuple[Tensor, ...], batch: Batch) -> list[Outputs]:
        """Compute the outputs of the branches.

        Args:
            stages: stages of the teacher for this batch.
            batch: the batch of this step.

        Returns:
            One set of outputs per branch.
        """
        parts = zip(self.branches, self.bridges, self.paths, self.matched, strict=True)
        return [
            branch(batch, replace={path: bridge(stages[stage])})
            for branch, bridge, path, (_, stage) in parts
        ]

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        return {**super().counts(batch), "friendly": item_weights(batch).sum()}

    def step(self, batch: Batch) -> Iterator[Update]:
        yield self.compute_losses(batch)

    def compute_losses(self, batch: Batch) -> Update:
        """Compute the losses of the teacher and its branches, and the loss ``friendly``."""
        outputs = replace_invalid_outputs(self.student(batch), batch, TRUNK_ROLES)
        ends = self.ends(stage_features(outputs), batch)
        ends = [replace_invalid_outputs(end, batch, TRUNK_ROLES) for end in ends]
        update: Update = self.objectives(outputs, {}, batch)
        others: list[Update] = [self.objectives(end, {}, batch) for end in ends]
        for name, teacher_loss in update.losses.items():
            branch_loss = torch.stack([other.losses[name] for other in others]).mean()
            update.losses[name] = teacher_loss + self.label_weight * branch_loss
        divergences = [
            sftn_loss(end["logits"], outputs["logits"], self.temperature, "none") for end in ends
        ]
        divergence = torch.stack(divergences).mean(0)
        update.losses["friendly"] = self.kl_weight * mean(divergence, item_weights(batch))
        return update


def _freeze_unreached(net: nn.Module, logits: Tensor) -> None:
    """Exclude the parameters that the logits do not depend on from training."""
    parameters = [parameter for parameter in net.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(logits.sum(), parameters, allow_unused=True)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.requires_grad_(gradient is not None)
