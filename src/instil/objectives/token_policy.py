"""What tokens that the student drew itself say about its distribution: estimates of the reverse KL, advantages, weights of a policy gradient."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Estimator = Literal["k1", "k2", "k3"]


def sampled_reverse_kl(student: Tensor, teacher: Tensor, estimator: Estimator = "k2") -> Tensor:
    """KL(student || teacher) estimated from one drawn token each, by its log-probabilities (...): to be backpropagated.

    ``k2``, half of (log q - log p)², has the gradient of the reverse KL over the draws. Raises ValueError for k1, log q - log p, whose gradient is 0
    over the draws, and for k3, p / q - 1 + log q - log p, whose gradient is that of the forward KL.
    """
    if estimator != "k2":
        why = "its gradient is 0 over the draws" if estimator == "k1" else "its gradient is that of the forward KL"
        raise ValueError(f"estimator {estimator} is not to be backpropagated as a reverse KL: {why}; take k2, or an advantage")
    return (student - teacher.detach()).square() / 2


def rewards_to_go(rewards: Tensor, mask: Tensor, discount: float = 1.0, normalized: bool = True) -> Tensor:
    """What a token (N, T) still earns: sum over u >= t of discount^(u - t) r_u, over what was drawn (``mask``).

    ``normalized``: divided by the number of tokens from t on, 1 where there are none (Gu et al. 2024), so that a longer text earns no less.
    Only distances between tokens enter, so that nothing depends on where in the row a text stands.
    """
    mask = mask.to(rewards.dtype)
    rewards = torch.where(mask > 0, rewards, 0.0)
    total, left = torch.zeros_like(rewards[:, 0]), torch.zeros_like(rewards[:, 0])
    earned = []
    for position in reversed(range(rewards.shape[1])):
        total, left = rewards[:, position] + discount * total, mask[:, position] + left
        earned.append(total / left.clamp_min(1) if normalized else total)
    return torch.stack(earned[::-1], 1)


def whitened(values: Tensor, mask: Tensor, epsilon: float = 1e-8) -> Tensor:
    """The values less their mean, over the root of their unbiased variance, both over what the mask counts."""
    mask = mask.to(values.dtype)
    number = mask.sum()
    mean = (values * mask).sum() / number.clamp_min(1)
    variance = ((values - mean).square() * mask).sum() / (number - 1).clamp_min(1)
    return (values - mean) * (variance + epsilon).rsqrt()


def clipped_policy_loss(student: Tensor, before: Tensor, advantage: Tensor, clip: float = 0.2, importance: Tensor | float = 1.0) -> Tensor:
    """max(-A r, -A clip(r, 1 - clip, 1 + clip)) of each token, r = q / q_before times the ``importance`` of how it was drawn (Schulman et al. 2017).

    ``student`` (...) are the log-probabilities of the tokens now, ``before`` those when they were drawn.
    """
    ratio = (student - before.detach()).exp() * importance
    advantage = advantage.detach()
    return torch.maximum(-advantage * ratio, -advantage * ratio.clamp(1 - clip, 1 + clip))


def prefix_weights(gap: Tensor, mask: Tensor, strength: float = 1.0, epsilon: float = 1e-8) -> Tensor:
    """1 + strength (1 - s_t), s_t being the share of sum abs(gap) that lies before token t of its row (N, T): early tokens count more.

    ``gap`` are the log-probabilities of the drawn tokens by the teacher less those by the student that drew them.
    """
    size = torch.where(mask.bool(), gap.detach().abs(), 0.0)
    share = (size.cumsum(1) - size) / size.sum(1, keepdim=True).clamp_min(epsilon)
    return 1 + strength * (1 - share)
