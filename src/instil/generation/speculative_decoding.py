"""Acceptance of a draft model's tokens by a target model, as in speculative decoding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from instil.core import Batch, side_effect_free, to_float32
from instil.generation.rollout import EndTokens, generate_with
from instil.generation.sampling import sample_top_p

STREAM = "generation.draft"
"""Random stream of proposed and accepted tokens."""


class Proposal(NamedTuple):
    """One token of the target's distribution, from a proposal of the draft.

    Attributes:
        token: the proposed token, or the target's own one if that was rejected (N,).
        is_accepted: whether the proposed token was accepted (N,).
        acceptance: probability that a proposal is accepted (N,).
    """

    token: Tensor
    is_accepted: Tensor
    acceptance: Tensor


class Acceptance(NamedTuple):
    """Acceptance of the tokens of a draft.

    Attributes:
        expected: mean probability that a proposed token is accepted.
        sampled: share of the proposed tokens that were accepted, one proposal for each token.
        expected_tokens: tokens per forward pass of the target, from ``expected``.
        sampled_tokens: tokens per forward pass of the target, counted.
        used: share of all proposals that became text. Those after a rejection in the same pass are
            lost, as in ``draft_n_accepted / draft_n`` of llama.cpp.
    """

    expected: float
    sampled: float
    expected_tokens: float
    sampled_tokens: float
    used: float


class Passes(NamedTuple):
    """Forward passes of the target for a text.

    Attributes:
        calls: number of passes.
        proposed: number of tokens that the draft proposed.
        used: number of proposed tokens that became text.
    """

    calls: int
    proposed: int
    used: int


def propose_token(draft_logits: Tensor, target_logits: Tensor, uniforms: Tensor) -> Proposal:
    """Sample a token of the target by speculative sampling (Leviathan et al. 2023, section 2.3).

    The draft proposes a token, which is accepted with probability ``min(1, p / q)``. Otherwise a
    token is sampled from the normalised ``max(0, p - q)``. The token has the distribution ``p`` of
    the target.

    Args:
        draft_logits: (N, V), of the distribution q.
        target_logits: (N, V), of the distribution p.
        uniforms: random numbers in [0, 1) (N, 2).

    Returns:
        The token, and whether the proposal was accepted.

    Example:
        >>> draft_logits = torch.tensor([[0.8, 0.2]]).log()
        >>> target_logits = torch.tensor([[0.4, 0.6]]).log()
        >>> result = propose_token(draft_logits, target_logits, torch.tensor([[0.1, 0.9]]))
        >>> result.token, result.is_accepted, result.acceptance
        (tensor([1]), tensor([False]), tensor([0.6000]))
    """
    draft = to_float32(draft_logits).softmax(-1)
    target = to_float32(target_logits).softmax(-1)
    proposed = sample_top_p(draft, uniforms[:, 0])[:, None]
    ratio = (target.gather(-1, proposed) / draft.gather(-1, proposed)).squeeze(-1).clamp_max(1)
    is_accepted = uniforms[:, 1] < ratio
    # The rest of the second number is uniform again after a rejection.
    rest = ((uniforms[:, 1] - ratio) / (1 - ratio).clamp_min(1e-6)).clamp(0, 1 - 1e-6)
    residual = (target - draft).clamp_min(0)
    # Equal distributions have no residual, and are never rejected.
    residual = residual + (residual.sum(-1, keepdim=True) == 0)
    own = sample_top_p(residual / residual.sum(-1, keepdim=True), rest)
    token = torch.where(is_accepted, proposed.squeeze(-1), own)
    return Proposal(token, is_accepted, torch.minimum(draft, target).sum(-1))


def tokens_per_call(acceptance: float, num_draft_tokens: int) -> float:
    """Expected tokens per forward pass of the target (Leviathan et al. 2023, Eq. 1).

    The formula treats the acceptances of consecutive tokens as independent.

    Args:
        acceptance: mean probability that a proposed token is accepted.
        num_draft_tokens: number of tokens that the draft proposes at a time.

    Example:
        >>> tokens_per_call(0.5, num_draft_tokens=2)
        1.75
    """
    if acceptance >= 1:
        return float(num_draft_tokens + 1)
    return (1 - acceptance ** (num_draft_tokens + 1)) / (1 - acceptance)


def count_passes(is_accepted: Sequence[bool], num_draft_tokens: int) -> Passes:
    """Count the forward passes of the target for a text.

    A pass checks the next ``num_draft_tokens`` proposals, uses those before the first rejection,
    and adds one token of the target. Nothing is proposed beyond the text.

    Args:
        is_accepted: whether the proposal for each token of the text is accepted.
        num_draft_tokens: number of tokens that the draft proposes at a time.

    Returns:
        Numbers of passes, proposals and used proposals.

    Example:
        >>> count_passes([True, True, False, True, True], num_draft_tokens=2)
        Passes(calls=2, proposed=3, used=3)
    """
    calls = proposed = used = position = 0
    while position < len(is_accepted):
        # The last token of a pass is that of the target.
        size = min(num_draft_tokens, len(is_accepted) - position - 1)
        num_used = 0
        while num_used < size and is_accepted[position + num_used]:
            num_used += 1
        position += num_used + 1
        calls, proposed, used = calls + 1, proposed + size, used + num_used
    return Passes(calls, proposed, used)


@torch.no_grad()
def draft_acceptance(
    draft: nn.Module,
    target: nn.Module,
    batch: Batch,
    end: EndTokens = None,
    min_prompt_tokens: int = 1,
    max_new_tokens: int | None = None,
    vocabulary: int | None = None,
    num_draft_tokens: int = 4,
    greedy: bool = False,
) -> Acceptance:
    """Measure the acceptance of a draft on texts of the target after the prompts of a batch.

    Args:
        draft: the small network, such as a student.
        target: the large network, such as its teacher, with the same tokens.
        batch: rows of tokens with prompts.
        end: see ``generation.rollout.generate_with``.
        min_prompt_tokens: see ``generation.rollout.generate_with``.
        max_new_tokens: see ``generation.rollout.generate_with``.
        vocabulary: see ``generation.rollout.generate_with``.
        num_draft_tokens: number of tokens that the draft proposes at a time.
        greedy: whether both networks select their most likely tokens, instead of sampling.

    Returns:
        Means over the tokens of all texts, at temperature 1 or, with ``greedy``, 0.
    """
    accepted: list[Tensor] = []
    probabilities: list[Tensor] = []

    def choose(logits: Sequence[Tensor], uniforms: Tensor) -> tuple[Tensor, Tensor]:
        size = min(side.shape[-1] for side in logits)
        draft_logits, target_logits = (side[:, :size] for side in logits)
        if greedy:
            proposal = _most_likely(draft_logits, target_logits)
        else:
            proposal = propose_token(draft_logits, target_logits, uniforms)
        accepted.append(proposal.is_accepted)
        probabilities.append(proposal.acceptance)
        return proposal.token, proposal.acceptance

    with side_effect_free(draft), side_effect_free(target):
        text = generate_with(
            batch,
            [draft, target],
            choose,
            end,
            min_prompt_tokens,
            max_new_tokens,
            STREAM,
            vocabulary,
        )
    lengths = text["valid"].sum(1).tolist()
    return _summarize(
        torch.stack(accepted, 1), torch.stack(probabilities, 1), lengths, num_draft_tokens
    )


def _most_likely(draft_logits: Tensor, target_logits: Tensor) -> Proposal:
    """Return the most likely token of the target, accepted if it is that of the draft."""
    token = target_logits.argmax(-1)
    is_accepted = draft_logits.argmax(-1) == token
    return Proposal(token, is_accepted, is_accepted.float())


def _summarize(
    is_accepted: Tensor, probability: Tensor, lengths: Sequence[int], num_draft_tokens: int
) -> Acceptance:
    """Means over the first tokens of each row (N, T), up to its length."""
    flags = is_accepted.tolist()
    rows = [row[:length] for row, length in zip(flags, lengths, strict=True)]
    is_text = torch.arange(probability.shape[1])[None] < torch.tensor(lengths)[:, None]
    num_tokens = max(sum(lengths), 1)
    expected = probability.double().cpu()[is_text].sum().item() / num_tokens
    passes = [count_passes(row, num_draft_tokens) for row in rows]
    calls, proposed, used = (sum(column) for column in zip(*passes, strict=True))
    return Acceptance(
        expected,
        sum(map(sum, rows)) / num_tokens,
        tokens_per_call(expected, num_draft_tokens),
        sum(lengths) / max(calls, 1),
        used / max(proposed, 1),
    )
