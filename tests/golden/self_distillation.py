"""Adapters for self-distillation between versions or samples of a batch, and for MEAL."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import functional_call

from instil.objectives.labels.cross_entropy import cross_entropy_loss
from instil.objectives.logits.bake import bake_loss, bake_targets
from instil.objectives.logits.ddgsd import ddgsd_loss, mean_discrepancy_loss
from instil.objectives.logits.meal import MEAL, meal_discriminator_loss, meal_similarity_loss
from tests.golden.cases import Case
from tests.golden.logits import Answer, temperature
from tests.golden.online import stored_outputs, students


def ddgsd(case: Case) -> Answer:
    """Label loss averaged over both halves and halved; the discrepancy uses single numbers."""
    first, second = students(case)
    hard = (
        cross_entropy_loss(first, case["target"]) + cross_entropy_loss(second, case["target"])
    ) / 4
    views = students(case, "embedding")
    if case.mentions("global means"):
        views = [view.flatten(1).mean(1, keepdim=True) for view in views]
    weight = case.option("mmd", case.option("beta", 5e-4))
    loss = ddgsd_loss(first, second, temperature(case)) + weight * mean_discrepancy_loss(*views)
    return hard + loss, stored_outputs(case, {"part.ce": hard, "part.div": loss})


def bake(case: Case) -> Answer:
    logits, embedding, soft = case["student.logits"], case["student.embedding"], temperature(case)
    omega = case.option("omega", 0.5)
    targets = bake_targets((logits.detach() / soft).softmax(-1), embedding.detach(), omega)
    return bake_loss(logits, embedding, soft, omega), stored_outputs(case, {"ensemble": targets})


def meal(case: Case) -> Answer:
    """Cross-entropy with probabilities.

    The discriminator of the repository ends in a ReLU and reverses no gradient.
    """
    student, teacher = case["student.logits"], case["teacher.logits"]
    soft = case["teacher.probabilities"]
    similarity = meal_similarity_loss(student, soft.log()) + torch.special.entr(soft).sum(-1).mean()
    objective = MEAL()
    objective.build({"logits": student}, {"logits": teacher})
    names = {"conv1": "0", "conv2": "2", "conv3": "4"}
    parts = ((name.split("."), value) for name, value in case.params("discriminator.").items())
    weights = {
        f"{names[layer]}.{kind}": value.flatten(2).squeeze(2) if kind == "weight" else value
        for (layer, kind), value in parts
    }

    def scores(logits: Tensor) -> Tensor:
        return functional_call(objective.critic, weights, logits).relu()

    discriminator = meal_discriminator_loss(scores(student), scores(teacher))
    return similarity + discriminator, stored_outputs(
        case, {"part.similarity": similarity, "part.discriminator": discriminator}
    )


ADAPTERS = {"ddgsd": ddgsd, "bake": bake, "meal": meal}
