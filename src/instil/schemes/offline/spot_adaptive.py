"""Spot-adaptive distillation: a policy chooses the distilled stages for each sample."""

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
    Net,
    NonNegative,
    Objective,
    Objectives,
    Outputs,
    Positive,
    Scheme,
    Teacher,
    Update,
    item_weights,
    mean,
    to_float32,
)
from instil.functional.keyed_random import keyed_uniform
from instil.functional.pooling import global_average_pool
from instil.items import replace_invalid_outputs, replace_uncounted
from instil.modules.eval_mode import eval_mode
from instil.modules.stage_adapter import StageAdapter
from instil.schemes.bases.branches import TRUNK_ROLES
from instil.schemes.bases.routing import attach_gate, spot_index, straight_through_sigmoid
from instil.schemes.bases.stage_pairs import StagePairs, resolve_stage_pairs, stage_paths
from instil.teachers.frozen import Frozen

POLICY_STREAM = "scheme.routes"
"""Random stream of the noise of the policy."""


class SpotAdaptive(Scheme):
    """Distillation of each sample at the spots that a policy chooses (Song et al. 2022).

    A spot is a pair of stages, or the output. Both networks form one network of many paths: at each
    spot a sample continues with the output of the student's or of the teacher's block, through
    adapters to the next blocks. There are two learners, the student and the policy. The policy, a
    linear map of the pooled deepest stages, and the adapters are trained to classify with that
    network. A sample is distilled at the spots where it takes the teacher's block.

    A spot switches the objective of its stage pair. The output switches all other objectives that
    read the teacher. Objectives without a teacher always count.

    Raises:
        ValueError: if the teacher is not one fixed network, ``features`` are not taps on
            module outputs, or there are no class labels; if an objective couples its samples
            or reads several spots; if stages cannot replace each other.
    """

    card = Card(
        "Spot-adaptive knowledge distillation",
        "https://arxiv.org/abs/2205.02399",
        "IEEE TIP",
        2022,
        source="offline",
        algorithms=("adaptive",),
        labels=("single",),
        holds_graph=True,
        equation=r"\min_{\pi, A} \mathrm{CE}(p_{routed}, y), \qquad "
        r"\min_s \mathrm{CE}(p^s, y) + \sum_k a_k(x)\, \mathcal{L}_k, \quad "
        r"a = \mathrm{gumbel}(\pi(f^s, f^t)) \in \lbrace 0, 1 \rbrace^K",
        use="For several objectives on stages and output of networks of one family, when it is not "
        "known which of them help: the policy drops them sample by sample.",
        pitfalls="A step runs both networks once more, block by block, with gradients in both. "
        "Class labels are needed. With one objective the only choice is on or off. A policy that "
        "never distils trains the plain student: check the loss route, and balance.",
        deviations="After the authors' code; only the abstract of the paper was read. Adapters are "
        "1 x 1 convolutions (linear maps of tokens), resized, without BatchNorm and ReLU. The "
        "code's factor on the policy's loss stays at 1, its value for FitNet. The code adds to "
        "that loss max(0, N/2 - samples distilled at the output) of the current batch. Here the "
        "share of the previous step decides whether to add it, so the result does not depend on "
        "how a batch is split. Losses that couple the batch, which the code computes over the "
        "chosen samples, are refused. The loss route is a mean over the labelled samples, as "
        "the only loss of the policy.",
        tags=("teacher_modules",),
    )
    share: Tensor

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        stage_pairs: Annotated[
            StagePairs,
            Doc(
                "pairs [student stage, teacher stage], counted from 0, shallow to deep; auto: all "
                "stages, for networks with the same number of them"
            ),
        ] = "auto",
        temperature: Annotated[Positive, Doc("temperature of the policy's Gumbel softmax")] = 5.0,
        prior: Annotated[
            float,
            Doc("initial score of the teacher's block; the authors use 10 within one family"),
        ] = 0.0,
        balance: Annotated[
            NonNegative,
            Doc("weight of the term that keeps half of the outputs distilled; 64: authors' batch"),
        ] = 64.0,
    ):
        super().__init__(student, teacher, objectives)
        self.stage_pairs = stage_pairs
        self.temperature = temperature
        self.prior = float(prior)  # read once, so that a schedule is refused
        self.balance = balance
        self.pairs: list[tuple[int, int]] = []
        self.paths: tuple[list[str], list[str]] = [], []
        self.policy: nn.Module = nn.Identity()
        self.to_student = nn.ModuleList()
        self.to_teacher = nn.ModuleList()
        # Share of the samples whose output was distilled in the previous step.
        self.register_buffer("share", torch.ones(()))
        self.learners["policy"] = ("policy", "to_student", "to_teacher")

    @property
    def fixed(self) -> Net:
        """Network of the teacher, whose blocks are run one by one."""
        if not isinstance(self.teacher, Frozen):
            teacher = "no teacher" if self.teacher is None else type(self.teacher).__name__
            raise ValueError(
                "teacher: spot_adaptive runs the blocks of the teacher. Expected one fixed "
                f"teacher, got {teacher}. Use one teacher, not recorded"
            )
        return self.teacher.net

    def build(self, batch: Batch) -> None:
        teacher, student = self.fixed(batch), self.student(batch)
        self.paths = stage_paths(self.student, "student"), stage_paths(self.fixed, "teacher")
        self.pairs = resolve_stage_pairs(self.stage_pairs, len(self.paths[0]), len(self.paths[1]))
        has_classes = "label" in batch and not batch["label"].is_floating_point()
        if not has_classes or student["logits"].ndim != 2:
            raise ValueError(
                "scheme: the policy learns to classify. Expected logits (N, C) and one class label "
                f"per sample, got {', '.join(batch)}. Use labelled samples"
            )
        stages = [(student["features"][i], teacher["features"][j]) for i, j in self.pairs]
        self.to_student = nn.ModuleList(StageAdapter(source, target) for target, source in stages)
        self.to_teacher = nn.ModuleList(StageAdapter(source, target) for source, target in stages)
        state = self._policy_input(student, teacher)
        num_spots = len(stages) + 1
        policy = nn.Linear(state.shape[1], num_spots, device=state.device, dtype=state.dtype)
        policy.bias.add_(self.prior)
        self.policy = policy
        gates = {
            name: attach_gate(name, objective)
            for name, objective in self.objectives.named()
            if objective.needs["teacher"]
        }
        self.objectives.build(student, teacher | {"spots": state.new_ones(len(state), num_spots)})
        for name, objective in self.objectives.named():
            if name in gates:
                gates[name].spot = spot_index(name, objective, self.pairs)
        assert self.teacher is not None
        self.teacher.select_roles(self.teacher_roles(), batch)

    def teacher_roles(self) -> set[str]:
        return super().teacher_roles() - {"spots"} | {"features", "logits"}

    @staticmethod
    def _policy_input(student: Outputs, teacher: Outputs) -> Tensor:
        """Input of the policy (N, D): the pooled deepest stages of both networks."""
        deepest = [side["features"][-1].detach() for side in (student, teacher)]
        return torch.cat([global_average_pool(to_float32(stage)) for stage in deepest], 1)

    def decide(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Sample the block that each sample takes at each spot.

        Args:
            student: outputs of the student.
            teacher: outputs of the teacher.
            batch: the batch of this step.

        Returns:
            Actions (N, spots + 1), 1 for the teacher's block, 0 for the student's; the last one
            is for the output. Gradients pass straight through.
        """
        score = to_float32(self.policy(self._policy_input(student, teacher)))
        # The shift keeps the numbers off 0, whose logarithm is infinite.
        uniforms = keyed_uniform(batch, score.shape[1], POLICY_STREAM) + 2**-25
        return straight_through_sigmoid(score, uniforms, self.temperature)

    def routed(self, batch: Batch, action: Tensor) -> Tensor:
        """Compute the logits (N, C) of the network of many paths, in evaluation mode.

        Rows of samples without a label, or that are not valid, hold those of another sample.

        Args:
            batch: the batch of this step.
            action: actions (N, spots + 1), see ``decide``.
        """
        student_stages: dict[str, Tensor] = {}
        teacher_stages: dict[str, Tensor] = {}
        counted = self._labelled(batch) > 0
        # A compiled graph does not contain the replaced outputs.
        with eval_mode(self.student), torch.compiler.set_stance("force_eager"):
            for spot, (i, j) in enumerate(self.pairs):
                own = self.student(batch, replace=student_stages)["features"][i]
                other = self.fixed(batch, replace=teacher_stages)["features"][j]
                own, other = (replace_uncounted(stage, counted) for stage in (own, other))
                gate = action[:, spot].view(-1, *[1] * (own.ndim - 1))
                to_student = self.to_student[spot](other)
                student_stages[self.paths[0][i]] = (1 - gate) * own + gate * to_student
                to_teacher = self.to_teacher[spot](own)
                teacher_stages[self.paths[1][j]] = (1 - gate) * to_teacher + gate * other
            own = self.student(batch, replace=student_stages)["logits"]
            other = self.fixed(batch, replace=teacher_stages)["logits"]
        own, other = (replace_uncounted(logits, counted) for logits in (own, other))
        return (1 - action[:, -1:]) * to_float32(own) + action[:, -1:] * to_float32(other)

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        return {**super().counts(batch), "route": self._labelled(batch).sum()}

    @staticmethod
    def _labelled(batch: Batch) -> Tensor:
        """Weight of each sample (N,) in the loss of the policy: 0 without a label."""
        labelled: Tensor = item_weights(batch) * (batch["label"] != UNLABELLED)
        return labelled

    def step(self, batch: Batch) -> Iterator[Update]:
        student, teacher = (
            replace_invalid_outputs(outputs, batch, TRUNK_ROLES)
            for outputs in self.forward_both(batch)
        )
        action = self.decide(student, teacher, batch)
        logits = self.routed(batch, action)
        values = F.cross_entropy(logits, batch["label"], ignore_index=UNLABELLED, reduction="none")
        at_output = action[:, -1]
        weight = item_weights(batch)
        imbalance = self.balance * (self.share < 0.5) * (0.5 - at_output)
        routing = torch.stack([at_output.detach() * weight, weight], 1)
        route = mean(values + imbalance, self._labelled(batch))
        yield Update({"route": route}, "policy", {"routing": routing})
        yield self.objectives(student, teacher | {"spots": action.detach()}, batch)

    def after_step(self, gathered_rows: dict[str, Tensor]) -> None:
        super().after_step(gathered_rows)
        distilled, count = gathered_rows["routing"].sum(0)
        self.share.copy_(torch.where(count > 0, distilled / count.clamp_min(1), self.share))
