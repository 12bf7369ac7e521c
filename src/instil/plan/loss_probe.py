"""Value, count and gradient of every loss of a scheme on one batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from instil.core import Batch, Scheme, Update
from instil.engine import Engine

MAX_PROBED_STEPS = 8

LossFacts = dict[str, dict[str, Any]]
"""Loss name (``learner/objective``) -> facts about this loss."""


def probe_losses(scheme: Scheme, engine: Engine, batch: Batch) -> LossFacts:
    """Compute every loss of a scheme on a batch, without training it.

    A scheme may train on another text or with another loss in each step. Up to eight steps are
    probed, until every loss counts items; otherwise the step with the most such losses is used.

    Args:
        scheme: prepared scheme, in train mode.
        engine: engine on which ``setup`` was called with the scheme.
        batch: first batch, with its clock.

    Returns:
        For each loss its ``learner``, ``value``, ``count`` (number of items), ``constant`` (whether
        it has no gradient) and ``gradient`` (norm of its gradient in the learner). ``share`` is
        the part of this norm in the sum over all losses of the learner. An objective also has
        ``reads``, ``adapters`` (number of parameters) and ``plan`` (pairs of feature levels).
    """
    probes: list[LossFacts] = []
    for step in range(MAX_PROBED_STEPS):
        step_batch = scheme.before_step(batch | {"step": torch.tensor(step)})
        probes.append(_losses_of_step(scheme, engine, step_batch))
        if all(facts["count"] for facts in probes[-1].values()):
            break
    return max(probes, key=_num_counted)


def _num_counted(losses: LossFacts) -> int:
    return sum(facts["count"] > 0 for facts in losses.values())


def _losses_of_step(scheme: Scheme, engine: Engine, batch: Batch) -> LossFacts:
    counts = scheme.counts(batch)
    losses: LossFacts = {}
    updates = scheme.step(batch)
    while True:
        # Autocast covers the forward pass of an update only, not the gradients below.
        with engine.autocast():
            update = next(updates, None)
        if update is None:
            break
        losses.update(_losses_of_update(update, engine, counts))
    _add_shares(losses)
    _add_objective_facts(losses, scheme)
    return losses


def _losses_of_update(update: Update, engine: Engine, counts: Mapping[str, Tensor]) -> LossFacts:
    learners = (update.learner,) if isinstance(update.learner, str) else update.learner
    learner = "+".join(learners)
    losses: LossFacts = {}
    for name, loss in update.losses.items():
        losses[f"{learner}/{name}"] = {
            "learner": learner,
            "value": float(loss.detach()),
            "count": float(counts[name].sum()),
            "constant": not loss.requires_grad,
            "gradient": _gradient_norm(loss, learners, engine) if loss.requires_grad else 0.0,
        }
    return losses


def _gradient_norm(loss: Tensor, learners: tuple[str, ...], engine: Engine) -> float:
    """Norm of the gradient of a loss with respect to the networks of its learners."""
    # An engine also optimizes adapters and balance weights; these are not part of a network.
    parameters: list[Tensor] = []
    network_ids: set[int] = set()
    for learner in learners:
        parameters += engine.parameters[learner]
        network_ids |= {id(parameter) for parameter in engine.nets[learner]}
    # The other losses of the update need the same graph.
    grads = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    norms = [
        float(grad.norm())
        for parameter, grad in zip(parameters, grads, strict=True)
        if grad is not None and id(parameter) in network_ids
    ]
    return float(sum(norm**2 for norm in norms) ** 0.5)


def _add_shares(losses: LossFacts) -> None:
    """Add the share of each loss in the gradient norms of its learner."""
    totals: dict[str, float] = {}
    for facts in losses.values():
        totals[facts["learner"]] = totals.get(facts["learner"], 0.0) + facts["gradient"]
    for facts in losses.values():
        total = totals[facts["learner"]]
        facts["share"] = facts["gradient"] / total if total else 0.0


def _add_objective_facts(losses: LossFacts, scheme: Scheme) -> None:
    """Add inputs, adapters and pairs of feature levels of the objective behind each loss."""
    objectives = dict(scheme.objectives.named())
    for key, facts in losses.items():
        objective = objectives.get(key.partition("/")[2])
        if objective is not None:
            facts["reads"] = {side: list(roles) for side, roles in objective.reads.items()}
            facts["adapters"] = sum(parameter.numel() for parameter in objective.parameters())
            facts["plan"] = list(getattr(objective, "plan", []))
