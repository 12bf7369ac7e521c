"""Policy gradient of groups of texts, and rewards of texts by comparison (GRPO)."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.core import UNLABELLED

SMALLEST_DEVIATION = 1e-6
"""Added to the standard deviation of the rewards of a group, which may be 0."""


def group_advantages(reward: Tensor) -> Tensor:
    """Rewards of each group, centred and divided by their standard deviation (GRPO).

    Args:
        reward: (G, N), rewards of G texts for each of N prompts.

    Returns:
        Advantages (G, N); 0 for a prompt whose texts have the same reward.

    Example:
        >>> import torch
        >>> group_advantages(torch.tensor([[1.0, 1.0], [0.0, 1.0]]))
        tensor([[ 1.0000,  0.0000],
                [-1.0000,  0.0000]])
    """
    deviation = reward.std(0, correction=0)
    return (reward - reward.mean(0)) / (deviation + SMALLEST_DEVIATION)


def clipped_policy_values(
    log_probs: Tensor, old_log_probs: Tensor, advantage: Tensor, clip: float = 0.2
) -> Tensor:
    """Negative clipped objective of PPO and GRPO for each token.

    ``-min(r A, clamp(r, 1 - clip, 1 + clip) A)`` with the ratio of probabilities ``r``. Where both
    weights agree, the gradient is that of ``-A log p``.

    Args:
        log_probs: log-probabilities of the tokens by the current weights (N, T).
        old_log_probs: their log-probabilities by the weights that generated them (N, T).
        advantage: advantage of each text (N,).
        clip: largest change of the ratio that a token is rewarded for.

    Returns:
        One value per token (N, T).

    Example:
        >>> import torch
        >>> new, old = torch.tensor([[0.9, 0.5]]).log(), torch.tensor([[0.5, 0.5]]).log()
        >>> clipped_policy_values(new, old, torch.tensor([1.0]))
        tensor([[-1.2000, -1.0000]])
    """
    ratio = (log_probs - old_log_probs).exp()
    advantage = advantage[:, None]
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)


def answer_tokens(token: Tensor, reference: Tensor) -> Tensor:
    """Tokens of whole answers whose first tokens belong to the prompts.

    A prompt of a minimum length may contain the beginning of the answer of the data.

    Args:
        token: generated tokens (N, T), -100 at other positions.
        reference: tokens of the data's answers (N, T), -100 at other positions.

    Returns:
        (N, T): the generated tokens, and the reference before the first of them.

    Example:
        >>> import torch
        >>> answer_tokens(torch.tensor([[-100, -100, 6]]), torch.tensor([[-100, 4, 5]]))
        tensor([[-100,    4,    6]])
    """
    first = (token != UNLABELLED).int().argmax(-1, keepdim=True)
    position = torch.arange(token.shape[-1], device=token.device)
    return torch.where(position < first, reference, token)


def exact_match(token: Tensor, reference: Tensor) -> Tensor:
    """Reward of generated texts that equal the texts of the data.

    Args:
        token: generated tokens (N, T), -100 at other positions.
        reference: tokens of the data's texts (N, T), -100 at other positions.

    Returns:
        Rewards (N,): 1 for equal texts, otherwise 0.

    Example:
        >>> import torch
        >>> exact_match(torch.tensor([[-100, 4, 5], [-100, 4, 6]]), torch.tensor([[-100, 4, 5]]))
        tensor([1., 0.])
    """
    return (token == reference).all(-1).float()


def token_accuracy(token: Tensor, reference: Tensor) -> Tensor:
    """Share of the positions of either text at which both have the same token.

    Args:
        token: generated tokens (N, T), -100 at other positions.
        reference: tokens of the data's texts (N, T), -100 at other positions.

    Returns:
        Rewards (N,) in [0, 1].

    Example:
        >>> import torch
        >>> token_accuracy(torch.tensor([[-100, 4, 6]]), torch.tensor([[-100, 4, 5]]))
        tensor([0.5000])
    """
    is_text = (token != UNLABELLED) | (reference != UNLABELLED)
    num_equal = ((token == reference) & is_text).sum(-1)
    return num_equal / is_text.sum(-1).clamp_min(1)
