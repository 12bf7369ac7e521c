"""A teacher that learns beside ends of the student-to-be, so that its features suit them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

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
    replace_invalid_outputs,
    to_float32,
)
from instil.modules.stage_adapter import StageAdapter
from instil.schemes.bases.branches import TRUNK_ROLES, stage_features
from instil.schemes.bases.stage_pairs import StagePairs, resolve_stage_pairs, stage_paths


def sftn_loss(
    branch: Tensor, net: Tensor, temperature: float = 1.0, reduction: str = "mean"
) -> Tensor:
    """T² KL(branch || net) of logits (N, C) at temperature T; its gradient reaches both (Park et al. 2021). (N,) for reduction ``none``.

    Raises ValueError where the shapes differ.
    """
    if branch.shape != net.shape:
        raise ValueError(
            f"logits are {tuple(branch.shape)} of the branch and {tuple(net.shape)} of the net; both must know the same classes"
        )
    mine, theirs = ((to_float32(logits) / temperature).log_softmax(-1) for logits in (branch, net))
    values = temperature**2 * (mine.exp() * (mine - theirs)).sum(-1)
    return values.mean() if reduction == "mean" else values


class SFTN(Scheme):
    """After every stage but the last a bridge leads into the rest of a net such as the student will be; these branches and the net itself learn by
    the objectives, and to say the same (Park et al. 2021). The net is exported without its branches: it is made to teach.

    ``branch``: the student that it shall teach, described as in ``student``.
    ``label_weight``: of the branches' mean loss by the objectives.
    ``kl_weight``: of the branches' mean KL to the net.
    ``temperature``: of that KL, with its square as a factor.
    ``stage_pairs``: [[branch's stage, net's stage], ...] of ``features``, shallow to deep; auto takes all where both nets have as many.

    As the ``scheme`` of a recipe's teacher it makes the teacher; the objectives are losses of labels, such as cross_entropy.
    """

    card = Card(
        "Learning Student-Friendly Teacher Networks for Knowledge Distillation",
        "https://arxiv.org/abs/2102.07650",
        "NeurIPS",
        2021,
        source="offline",
        labels=("single",),
        deviations="All branches start alike. The parts of a branch that its bridge goes round are run and not trained. The factor T² is ours; at "
        "the default temperature it is 1. The authors' code and the paper's tables were not at hand: the weights are not checked against them.",
        equation=r"\mathrm{CE}(z, y) + \frac{1}{K} \sum_{i=1}^{K} \left( \lambda\, \mathrm{CE}(z^i, y) + \mu\, T^2 \mathrm{KL}(p^i_T \Vert p_T) "
        r"\right), \quad z^i = (f^s_{>i} \circ b_i)(h_i)",
        use="A teacher that is trained here anyway, for a student whose family is known; then any way of distilling.",
        pitfalls="The teacher's own accuracy may fall: what counts is the student's. Where the branches are very small a large kl_weight pulls the "
        "teacher down to them. It is fitted to one student; for others train another.",
    )

    def __init__(
        self,
        student: nn.Module,
        objectives: Objectives | Mapping[str, Objective],
        branch: nn.Module,
        label_weight: NonNegative = 1.0,
        kl_weight: NonNegative = 3.0,
        temperature: Positive = 1.0,
        stage_pairs: StagePairs = "auto",
    ):
        super().__init__(student, None, objectives)
        self.label_weight, self.kl_weight, self.temperature, self.stage_pairs = (
            label_weight,
            kl_weight,
            temperature,
            stage_pairs,
        )
        self.matched: list[tuple[int, int]] = []
        self.paths: list[str] = []
        self.branches, self.bridges = nn.ModuleList([as_net(branch)]), nn.ModuleList()
        self.learners["student"] += ("branches", "bridges")

    def build(self, batch: Batch) -> None:
        outputs, like = self.student(batch), self.branches[0](batch)
        stages, wanted = stage_features(outputs), stage_features(like)
        sftn_loss(like["logits"], outputs["logits"])
        self.matched = resolve_stage_pairs(self.stage_pairs, len(wanted), len(stages))[:-1]
        if not self.matched:
            raise ValueError(
                "scheme.stage_pairs: there must be two or more; a branch starts after any but the last"
            )
        named = self.branches[0]
        assert not isinstance(named, Tensor)
        paths = stage_paths(as_net(named), "branch")
        self.paths = [paths[mine] for mine, _ in self.matched]
        self.bridges.extend(
            StageAdapter(stages[theirs], wanted[mine], 3) for mine, theirs in self.matched
        )
        self.branches.extend(copy.deepcopy(named) for _ in self.matched[1:])
        with torch.enable_grad():
            for ended, end in zip(self.branches, self.ends(stages, batch), strict=True):
                _freeze_unreached(ended, end["logits"])
        self.objectives.build(outputs, {})

    def ends(self, stages: tuple[Tensor, ...], batch: Batch) -> list[Outputs]:
        """What each branch says, given the net's stages."""
        parts = zip(self.branches, self.bridges, self.paths, self.matched, strict=True)
        return [
            branch(batch, replace={path: bridge(stages[theirs])})
            for branch, bridge, path, (_, theirs) in parts
        ]

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        return {**super().counts(batch), "friendly": item_weights(batch).sum()}

    def step(self, batch: Batch) -> Iterator[Update]:
        yield self.compute_losses(batch)

    def compute_losses(self, batch: Batch) -> Update:
        """The objectives' update of the net and, by their mean, its branches, with the loss ``friendly``."""
        outputs = replace_invalid_outputs(self.student(batch), batch, TRUNK_ROLES)
        ends = self.ends(stage_features(outputs), batch)
        ends = [replace_invalid_outputs(end, batch, TRUNK_ROLES) for end in ends]
        update: Update = self.objectives(outputs, {}, batch)
        others: list[Update] = [self.objectives(end, {}, batch) for end in ends]
        for name, own in update.losses.items():
            update.losses[name] = (
                own
                + self.label_weight * torch.stack([other.losses[name] for other in others]).mean()
            )
        apart = torch.stack(
            [sftn_loss(end["logits"], outputs["logits"], self.temperature, "none") for end in ends]
        ).mean(0)
        update.losses["friendly"] = self.kl_weight * mean(apart, item_weights(batch))
        return update


def _freeze_unreached(net: nn.Module, logits: Tensor) -> None:
    """Leave out of training what these logits do not depend on."""
    parameters = [parameter for parameter in net.parameters() if parameter.requires_grad]
    for parameter, gradient in zip(
        parameters, torch.autograd.grad(logits.sum(), parameters, allow_unused=True), strict=True
    ):
        parameter.requires_grad_(gradient is not None)
