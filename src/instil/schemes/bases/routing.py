"""Per-sample switches of objectives, for schemes that route samples through two networks."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from instil.core import Objective
from instil.schemes.bases.stage_pairs import RoutingWeight


def straight_through_sigmoid(score: Tensor, uniforms: Tensor, temperature: float) -> Tensor:
    """Sample binary actions from a Gumbel softmax of two choices, with straight-through gradients.

    It is the sigmoid of the difference of the scores, with logistic noise.

    Args:
        score: difference of the scores of both choices.
        uniforms: random numbers in (0, 1), in the shape of ``score``.
        temperature: temperature of the sigmoid, > 0.

    Returns:
        Actions, 0 or 1, with the gradient of the sigmoid.

    Example:
        >>> import torch
        >>> straight_through_sigmoid(torch.tensor([2.0, -2.0]), torch.tensor([0.5, 0.5]), 5.0)
        tensor([1., 0.])
    """
    # The difference of two Gumbel variables is logistic, so one uniform number per action is
    # enough.
    noise_score = score + uniforms.log() - (-uniforms).log1p()
    soft = (noise_score / temperature).sigmoid()
    # The difference is 0 in value, so the sum is exactly 0 or 1.
    return (soft > 0.5).to(soft.dtype) + (soft - soft.detach())


def attach_gate(name: str, objective: Objective) -> RoutingWeight:
    """Make an objective count only the samples that are distilled at its spot.

    Args:
        name: name of the objective, for the error.
        objective: objective that reads the teacher.

    Returns:
        The new sample weight of the objective.

    Raises:
        ValueError: if the objective couples the samples of a batch.
    """
    if objective.couples:
        raise ValueError(
            f"objectives.{name}: {type(objective).__name__} has one loss for the batch, which "
            "cannot be switched for a sample. Expected losses of single samples. Remove it"
        )
    gate = RoutingWeight(objective.sample_weight)
    objective.sample_weight = gate
    return gate


def spot_index(name: str, objective: Objective, pairs: Sequence[tuple[int, int]]) -> int:
    """Return the spot that switches an objective.

    Args:
        name: name of the objective, for the error.
        objective: objective that is built.
        pairs: stage pairs of the spots.

    Returns:
        The index of the one stage pair that the objective reads, or ``len(pairs)``, the output.

    Raises:
        ValueError: if the objective reads several stage pairs, or one that is not a spot.
    """
    if "features" not in objective.reads["teacher"]:
        return len(pairs)
    matched = [tuple(pair) for pair in getattr(objective, "matched", ())]
    if len(matched) != 1 or matched[0] not in pairs:
        spots = ", ".join(str(list(pair)) for pair in pairs)
        stages = ", ".join(str(list(pair)) for pair in matched) or "all stages at once"
        raise ValueError(
            f"objectives.{name}: expected an objective of one spot. Expected one "
            f"of {spots}, got {stages}. Use one objective per stage pair, with its pairs"
        )
    return list(pairs).index((matched[0][0], matched[0][1]))
