"""KRD: the student of a node learns the teacher's outputs for reliable neighbours, too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le, Lt
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import (
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
from instil.functional.graph import counted_edges, edge_index
from instil.functional.keyed_random import keyed_normal, keyed_uniform
from instil.functional.reliability import (
    agreement_by_bin,
    entropy_change,
    fit_power,
    neighbour_kl,
    sampling_probability,
)
from instil.items import replace_invalid


class KRD(Scheme):
    """Knowledge-inspired reliable distillation (Wu et al. 2023).

    The loss ``krd`` compares the student's output for a node with the teacher's outputs for the
    node and for sampled neighbours. A neighbour is unreliable, and sampled less often, if noise on
    the features changes the entropy of the teacher's output for it. The power of the sampling
    probability follows the agreement of student and teacher during training.
    """

    card = Card(
        "Quantifying the knowledge in GNNs for reliable distillation into MLPs",
        "https://arxiv.org/abs/2306.05628",
        "ICML",
        2023,
        source="offline",
        algorithms=("graph",),
        tags=("changed_inputs",),
        tasks=("node_classification",),
        labels=("single",),
        equation=r"\operatorname*{mean}_{i,\, j \in \{i\} \cup \mathcal{S}_i} \mathrm{KL}\left( "
        r"p^t_j \Vert p^s_i \right), \quad P(j \in \mathcal{S}_i) = 1 - \left( "
        r"\frac{\rho_j}{\max_k \rho_k} \right)^{\alpha}, \quad \rho_j = \left| H(p^t_j(x + "
        r"\epsilon)) - H(p^t_j(x)) \right|",
        use="For a student without edges (GLNN) on a graph whose neighbours mostly share a class: "
        "the outputs for reliable neighbours are additional soft targets.",
        pitfalls="Only edges between two requested nodes of a batch count, so use large batches. "
        "If neighbours often have other classes, the additional targets are wrong. Every step "
        "needs a second forward pass of the teacher.",
        deviations="As in the authors' code, the reliability is the absolute change of the entropy "
        "for one draw of noise and the temperature is not compensated. The power is fitted on a "
        "grid, over bins with nodes, and their centres are used.",
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        weight: Annotated[Positive, Doc("factor of the loss krd")] = 1.0,
        temperature: Annotated[Positive, Doc("softmax temperature of the loss krd")] = 1.0,
        noise: Annotated[
            Positive, Doc("standard deviation of the noise on the features of the teacher")
        ] = 1.0,
        power: Annotated[Positive, Doc("power of the sampling probability at the start")] = 1.0,
        momentum: Annotated[float, Ge(0), Lt(1), Doc("momentum of the power")] = 0.99,
        warmup: Annotated[
            float, Ge(0), Le(1), Doc("share of the training in which all neighbours are targets")
        ] = 0.1,
        bins: Annotated[int, Gt(1), Doc("bins of the reliability for the fit of the power")] = 50,
    ):
        super().__init__(student, teacher, objectives)
        self.weight = weight
        self.temperature = temperature
        self.noise = noise
        self.momentum = momentum
        self.warmup = warmup
        self.bins = bins
        self.power: Tensor
        self.largest_change: Tensor
        self.register_buffer("power", torch.tensor(float(power)))
        self.register_buffer("largest_change", torch.tensor(0.0))

    def build(self, batch: Batch) -> None:
        if self.teacher is None:
            raise ValueError("teacher: krd needs a teacher")
        edge_index(batch)
        super().build(batch)
        changed = batch | {"x": batch["x"] + self.noise}
        outputs = [self.teacher_outputs(one)["logits"] for one in (batch, changed)]
        if torch.equal(*outputs):
            raise ValueError(
                "teacher: krd needs outputs for features with noise. Expected a network that reads "
                "x, got outputs that do not depend on it. Leave precompute and store out"
            )

    def teacher_roles(self) -> set[str]:
        return super().teacher_roles() | {"logits"}

    def before_step(self, batch: Batch) -> Batch:
        """Add ``clean_outputs`` of the teacher, the entropy changes and the sampled edges."""
        clean = self.teacher_outputs(batch)
        # The same noise in every step: the teacher does not change, nor does the reliability.
        fixed = {"index": batch["index"], "seed": batch.get("seed", 0)}
        features: Tensor = batch["x"]
        noise = keyed_normal(fixed, features.shape[1], "scheme.krd_noise").to(features)
        noisy = self.teacher_outputs(batch | {"x": features + self.noise * noise})
        change = entropy_change(noisy["logits"], clean["logits"])
        change = replace_invalid(change, batch)
        return batch | {
            "clean_outputs": clean,
            "entropy_change": change,
            "sampled": self._sampled(batch, change),
        }

    def _sampled(self, batch: Batch, change: Tensor) -> Tensor:
        """Mask (E,) of the edges whose source is a target of this step."""
        source, target = edge_index(batch)
        counted = counted_edges(batch)
        if float(batch.get("progress", 0.0)) < self.warmup:
            return counted
        probability = sampling_probability(change, self.largest_change, self.power)
        index: Tensor = batch["index"]
        # One number per edge, by the identities of both ends.
        pair = index[source] * 1_000_003 + index[target]
        draw = keyed_uniform(batch | {"index": pair}, 1, "scheme.krd_edges")[:, 0]
        return counted & (draw < probability[source])

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        num_targets = item_weights(batch).sum() + batch["sampled"].sum()
        return {**super().counts(batch), "krd": num_targets}

    def step(self, batch: Batch) -> Iterator[Update]:
        yield self.compute_losses(batch)

    def compute_losses(self, batch: Batch) -> Update:
        """Return the objectives' update with the loss ``krd``."""
        teacher: Outputs = batch["clean_outputs"]
        student = self.student(batch)
        update: Update = self.objectives(student, teacher, batch)
        student_logits = replace_invalid(student["logits"], batch)
        teacher_logits = replace_invalid(teacher["logits"], batch)
        values = neighbour_kl(
            student_logits, teacher_logits, edge_index(batch), batch["sampled"], self.temperature
        )
        weight = torch.cat([item_weights(batch), batch["sampled"].to(values.dtype)])
        update.losses["krd"] = self.weight * mean(values, weight)
        agrees = student_logits.argmax(1) == teacher_logits.argmax(1)
        rows = torch.stack([batch["entropy_change"], agrees.to(values.dtype)], 1)
        update.state_updates["krd"] = rows[item_weights(batch) > 0].detach()
        return update

    def after_step(self, gathered_rows: dict[str, Tensor]) -> None:
        """Update the largest entropy change, and the power by a fit to the agreement."""
        super().after_step(gathered_rows)
        change, agrees = gathered_rows["krd"].unbind(1)
        if not len(change):
            return
        self.largest_change.copy_(torch.maximum(self.largest_change, change.max()))
        relative = change / self.largest_change.clamp_min(torch.finfo(change.dtype).tiny)
        centres, share = agreement_by_bin(relative, agrees, self.bins)
        if len(centres) < 2 or share.max() == share.min():
            return
        fitted = fit_power(centres, share)
        self.power.lerp_(fitted.to(self.power), 1 - self.momentum)
