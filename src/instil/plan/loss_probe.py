"""Value, count and gradient of every loss of a scheme on one batch."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from instil.core import Batch, Schedule, Scheme, Update
from instil.engine import Engine
from instil.plan.step_timer import first_step_clock

MAX_PROBED_STEPS = 8
"""Largest number of steps in which items of every loss are looked for."""

LossFacts = dict[str, dict[str, Any]]
"""Loss name (``learner/objective``) -> facts about this loss."""


def first_batches(loader: Iterable[Batch], engine: Engine, seed: int) -> Iterator[Batch]:
    """Batches of a training on the device, each with the clock of the first step.

    Args:
        loader: loader of the training; it is repeated, because an epoch may have few batches.
        engine: engine of the training.
        seed: seed of the training.

    Yields:
        Batches, without end.
    """
    for batch in itertools.chain.from_iterable(itertools.repeat(loader)):
        yield engine.move(batch) | first_step_clock(seed)


def probe_losses(scheme: Scheme, engine: Engine, batches: Iterable[Batch]) -> LossFacts:
    """Compute every loss of a scheme on its first batches, without training it.

    A scheme may train on another text or with another loss in each step, and few labels are in
    few batches. Up to eight steps are probed, until every loss has items. A loss without items in
    the step with the most losses has the facts of its own first step with items.

    Args:
        scheme: prepared scheme, in train mode.
        engine: engine on which ``setup`` was called with the scheme.
        batches: batches of the first steps, each with its clock.

    Returns:
        For each loss its ``learner``, ``value``, ``count`` (number of items), ``constant`` (whether
        it has no gradient) and ``gradient`` (norm of its gradient in the learner). ``share`` is
        the part of this norm in the sum over all losses of the learner. An objective also has
        ``reads``, ``adapters`` (number of parameters) and ``plan`` (pairs of feature levels).
    """
    probes: list[LossFacts] = []
    for step, batch in enumerate(itertools.islice(batches, MAX_PROBED_STEPS)):
        step_batch = scheme.before_step(batch | {"step": torch.tensor(step)})
        probes.append(_losses_of_step(scheme, engine, step_batch))
        if not _losses_without_items(probes[-1], scheme):
            break
    # The first of several steps with equally many losses is used.
    losses = max(probes, key=lambda probe: len(probe) - len(_losses_without_items(probe, scheme)))
    for key in _losses_without_items(losses, scheme):
        for probe in probes:
            if key in probe and not lacks_items(key, probe[key], scheme):
                losses[key] = probe[key]
                break
    return losses


def lacks_items(key: str, facts: Mapping[str, Any], scheme: Scheme) -> bool:
    """Whether no item contributes to a loss.

    Args:
        key: name of the loss (``learner/objective``).
        facts: facts about the loss.
        scheme: the scheme.
    """
    name = key.partition("/")[2]
    objective = dict(scheme.objectives.named()).get(name)
    # With average=batch, the count of a label loss includes unlabelled items: then the value is 0.
    is_label_loss = objective is not None and objective.items.labelled
    is_zero = facts["value"] == 0 and not begins_later(scheme.objectives.weights.get(name, 1.0))
    return not facts["count"] or (is_zero and is_label_loss)


def begins_later(weight: float | Schedule) -> bool:
    """Whether a weight rises from 0, so that the loss is 0 in the first step."""
    return isinstance(weight, Schedule) and weight.start == 0 < weight.end


def _losses_without_items(losses: LossFacts, scheme: Scheme) -> list[str]:
    return [key for key, facts in losses.items() if lacks_items(key, facts, scheme)]


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
