"""A policy says for each sample at which spots the student is distilled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

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
    keyed_uniform,
    mean,
    replace_invalid_outputs,
    replace_uncounted,
    to_float32,
)
from instil.functional.pooling import global_average_pool
from instil.modules.eval_mode import eval_mode
from instil.modules.stage_adapter import StageAdapter
from instil.schemes.bases.branches import TRUNK_ROLES
from instil.schemes.bases.stage_pairs import (
    RoutingWeight,
    StagePairs,
    resolve_stage_pairs,
    stage_paths,
)
from instil.teachers.frozen import Frozen

SALT = 2205
"""Sets the policy's noise apart from other draws of the same sample and step."""


class SpotAdaptive(Scheme):
    """Two learners: a student, and a policy of where each sample is distilled: at which stages, and at the output (Song et al. 2022).

    Both nets make up one net of many paths: at each spot a sample goes on with what the student's block made of it or what the teacher's did,
    through adapters to both nets' next blocks. The policy, a linear map of both deepest stages' mean, and the adapters learn that this net
    classifies well; where a sample takes the teacher's block, distillation is switched on for it, elsewhere off.

    An objective of one pair of stages is switched by that pair, any other that reads the teacher by the output; those without a teacher always
    count. The nets need ``features`` as taps on the outputs of modules, and the policy's loss needs class labels.

    ``stage_pairs``: [[student stage, teacher stage], ...], counted from 0, shallow to deep; auto takes all where both nets have as many.
    ``temperature``: of the policy's Gumbel softmax.
    ``prior``: added to the teacher's score at the start; the authors take 10 where both nets are of one family.
    ``balance``: how strongly the policy is pushed to distil the output of at least half of the samples; the authors' batch of 64.

    Raises ValueError for a teacher that is not one fixed net, an objective that couples its samples or reads several spots, stages that cannot
    take each other's place.
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
        equation=r"\min_{\pi, A} \mathrm{CE}(p_{routed}, y), \qquad \min_s \mathrm{CE}(p^s, y) + \sum_k a_k(x)\, \mathcal{L}_k, \quad "
        r"a = \mathrm{gumbel}(\pi(f^s, f^t)) \in \lbrace 0, 1 \rbrace^K",
        use="Several objectives on stages and output of nets of one family, when it is not known which help: the policy drops them sample by sample.",
        pitfalls="A step runs both nets once more, block by block, with gradients through both. Class labels are needed. With one objective "
        "there is nothing to choose but on or off. A policy that never distils leaves the student alone: look at the loss route, and at the balance.",
        deviations="After the authors' code; of the paper only the abstract was read. Adapters are 1 x 1 convolutions (linear maps of tokens), "
        "resized, without BatchNorm and ReLU. The code's factor on the policy's loss is left at 1, as it sets it for FitNet. It adds to that loss "
        "max(0, N/2 - samples distilled at the output) of the batch at hand; here the share of the step before says whether to push, so that no "
        "cut of the batch matters. Losses that couple the batch, which it computes over the samples chosen, are refused. "
        "The loss route is a mean over the labelled samples. It is the only loss of the policy, so "
        "the labelled share of the batch would only scale its learning rate.",
    )
    share: Tensor

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        stage_pairs: StagePairs = "auto",
        temperature: Positive = 5.0,
        prior: float = 0.0,
        balance: NonNegative = 64.0,
    ):
        super().__init__(student, teacher, objectives)
        self.stage_pairs, self.temperature, self.prior, self.balance = (
            stage_pairs,
            temperature,
            prior,
            balance,
        )
        self.places: list[tuple[int, int]] = []
        self.paths: tuple[list[str], list[str]] = [], []
        self.policy: nn.Module = nn.Identity()
        self.to_student, self.to_teacher = nn.ModuleList(), nn.ModuleList()
        self.register_buffer(
            "share", torch.ones(())
        )  # of the samples whose output was distilled in the step before
        self.learners["policy"] = ("policy", "to_student", "to_teacher")

    @property
    def fixed(self) -> Net:
        """The teacher's net, whose blocks are used one by one."""
        if not isinstance(self.teacher, Frozen):
            found = "no teacher" if self.teacher is None else type(self.teacher).__name__
            raise ValueError(
                f"scheme: samples go through the blocks of one fixed teacher; this is {found}"
            )
        return self.teacher.net

    def build(self, batch: Batch) -> None:
        teacher, student = self.fixed(batch), self.student(batch)
        self.paths = stage_paths(self.student, "student"), stage_paths(self.fixed, "teacher")
        self.places = resolve_stage_pairs(self.stage_pairs, len(self.paths[0]), len(self.paths[1]))
        if (
            "label" not in batch
            or batch["label"].is_floating_point()
            or student["logits"].ndim != 2
        ):
            raise ValueError(
                "scheme: the policy learns to classify, from logits (N, C) and one class label a sample"
            )
        stages = [(student["features"][i], teacher["features"][j]) for i, j in self.places]
        self.to_student = nn.ModuleList(StageAdapter(theirs, mine) for mine, theirs in stages)
        self.to_teacher = nn.ModuleList(StageAdapter(mine, theirs) for mine, theirs in stages)
        seen = self._seen(student, teacher)
        policy = nn.Linear(seen.shape[1], len(stages) + 1, device=seen.device, dtype=seen.dtype)
        policy.bias.add_(self.prior)
        self.policy = policy
        gates = {
            name: self._gate(name, objective)
            for name, objective in self.objectives.named()
            if objective.needs["teacher"]
        }
        self.objectives.build(
            student, teacher | {"spots": seen.new_ones(len(seen), len(stages) + 1)}
        )
        for name, gate in gates.items():
            gate.spot = self._spot_of(name)
        assert self.teacher is not None
        self.teacher.select_roles(
            self.objectives.reads("teacher") - {"spots"} | {"features", "logits"}, batch
        )

    def _gate(self, name: str, objective: Objective) -> RoutingWeight:
        if objective.couples:
            raise ValueError(
                f"objectives.{name}: {type(objective).__name__} has one loss for the batch; it cannot be switched for a sample"
            )
        gate = RoutingWeight(objective.sample_weight)
        objective.sample_weight = gate
        return gate

    def _spot_of(self, name: str) -> int:
        """The spot that switches an objective: that of its one pair of stages, else the output."""
        objective = self.objectives[name]
        assert isinstance(objective, Objective)
        if "features" not in objective.reads["teacher"]:
            return len(self.places)
        pairs = [tuple(pair) for pair in getattr(objective, "matched", ())]
        if len(pairs) != 1 or pairs[0] not in self.places:
            spots, found = (
                ", ".join(str(list(place)) for place in self.places),
                ", ".join(str(list(pair)) for pair in pairs) or "all stages at once",
            )
            raise ValueError(
                f"objectives.{name} reads {found}; it must be one spot of {spots}: give each an objective of its own with its pairs"
            )
        return self.places.index((pairs[0][0], pairs[0][1]))

    @staticmethod
    def _seen(student: Outputs, teacher: Outputs) -> Tensor:
        """(N, D): what the policy sees, the means over positions of both deepest stages."""
        return torch.cat(
            [
                global_average_pool(to_float32(side["features"][-1].detach()))
                for side in (student, teacher)
            ],
            1,
        )

    def decide(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """(N, spots + 1): 1 where a sample takes the teacher's block (at last, its output), 0 where the student's; gradients pass straight through.

        The Gumbel softmax of two choices: the sigmoid of their scores' difference with logistic noise.
        """
        score = to_float32(self.policy(self._seen(student, teacher)))
        chance = keyed_uniform(batch, score.shape[1], SALT) + 2**-25  # never 0 or 1
        soft = ((score + chance.log() - (-chance).log1p()) / self.temperature).sigmoid()
        return (soft > 0.5).to(soft.dtype) + (soft - soft.detach())  # exactly 0 or 1

    def routed(self, batch: Batch, action: Tensor) -> Tensor:
        """(N, C): logits of the net of many paths, both nets in eval mode.

        Rows of samples that have no label, or are not valid, hold those of another sample.
        """
        mine: dict[str, Tensor] = {}
        theirs: dict[str, Tensor] = {}
        counted = self._labelled(batch) > 0
        with (
            eval_mode(self.student),
            torch.compiler.set_stance("force_eager"),
        ):  # what is replaced is no part of a compiled graph
            for spot, (i, j) in enumerate(self.places):
                own, other = (
                    self.student(batch, replace=mine)["features"][i],
                    self.fixed(batch, replace=theirs)["features"][j],
                )
                own, other = replace_uncounted(own, counted), replace_uncounted(other, counted)
                taken = action[:, spot].view(-1, *[1] * (own.ndim - 1))
                mine[self.paths[0][i]] = (1 - taken) * own + taken * self.to_student[spot](other)
                theirs[self.paths[1][j]] = (1 - taken) * self.to_teacher[spot](own) + taken * other
            own, other = (
                self.student(batch, replace=mine)["logits"],
                self.fixed(batch, replace=theirs)["logits"],
            )
        own, other = replace_uncounted(own, counted), replace_uncounted(other, counted)
        return (1 - action[:, -1:]) * to_float32(own) + action[:, -1:] * to_float32(other)

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        return {**super().counts(batch), "route": self._labelled(batch).sum()}

    @staticmethod
    def _labelled(batch: Batch) -> Tensor:
        labelled: Tensor = item_weights(batch) * (batch["label"] != UNLABELLED)
        return labelled

    def step(self, batch: Batch) -> Iterator[Update]:
        student, teacher = (
            replace_invalid_outputs(outputs, batch, TRUNK_ROLES)
            for outputs in self.forward_both(batch)
        )
        action = self.decide(student, teacher, batch)
        wrong = F.cross_entropy(
            self.routed(batch, action), batch["label"], ignore_index=UNLABELLED, reduction="none"
        )
        at_output, weight = action[:, -1], item_weights(batch)
        missing = self.balance * (self.share < 0.5) * (0.5 - at_output)
        kept = torch.stack([at_output.detach() * weight, weight], 1)
        yield Update(
            {"route": mean(wrong + missing, self._labelled(batch))}, "policy", {"routing": kept}
        )
        yield self.objectives(student, teacher | {"spots": action.detach()}, batch)

    def after_step(self, gathered_rows: dict[str, Tensor]) -> None:
        super().after_step(gathered_rows)
        taken, counted = gathered_rows["routing"].sum(0)
        self.share.copy_(torch.where(counted > 0, taken / counted.clamp_min(1), self.share))
