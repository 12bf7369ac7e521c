"""Speculative sampling keeps the target's distribution; both measures of acceptance agree."""

from __future__ import annotations

import pytest
import torch

from instil.generation.rollout import generate_with
from instil.generation.sampling import sample_tokens
from instil.generation.speculative_decoding import (
    count_passes,
    draft_acceptance,
    propose_token,
    tokens_per_call,
)
from tests.schemes.texts import END, net, prompts


def test_tokens_have_the_distribution_of_the_target() -> None:
    generator = torch.Generator().manual_seed(0)
    draft, target = torch.randn(2, 6, generator=generator) * 1.5
    uniforms = torch.rand(200_000, 2, generator=generator)
    proposal = propose_token(draft.expand(200_000, -1), target.expand(200_000, -1), uniforms)
    counts = torch.bincount(proposal.token, minlength=6) / len(uniforms)
    torch.testing.assert_close(counts, target.softmax(-1), atol=0.005, rtol=0)
    expected = torch.minimum(draft.softmax(-1), target.softmax(-1)).sum()
    assert proposal.is_accepted.float().mean().item() == pytest.approx(expected.item(), abs=0.005)
    torch.testing.assert_close(proposal.acceptance[0], expected)


@pytest.mark.parametrize("num_draft_tokens", [1, 3])
def test_the_formula_is_the_mean_over_independent_acceptances(num_draft_tokens: int) -> None:
    generator = torch.Generator().manual_seed(1)
    is_accepted = (torch.rand(50_000, generator=generator) < 0.7).tolist()
    counted = len(is_accepted) / count_passes(is_accepted, num_draft_tokens).calls
    assert counted == pytest.approx(tokens_per_call(0.7, num_draft_tokens), rel=0.01)
    assert tokens_per_call(1.0, num_draft_tokens) == num_draft_tokens + 1
    assert tokens_per_call(0.0, num_draft_tokens) == 1


def test_a_network_accepts_its_own_tokens() -> None:
    result = draft_acceptance(net(seed=1), net(seed=1), prompts(), END)
    assert result.expected == pytest.approx(1, abs=1e-5)
    assert result.sampled == 1
    assert 1 < result.sampled_tokens <= 5


def test_sampled_and_expected_acceptance_agree() -> None:
    draft, target = net(seed=1, sharp=3.0), net(seed=2, sharp=3.0)
    results = [draft_acceptance(draft, target, prompts(step, size=128), END) for step in range(8)]
    expected, sampled = (
        sum(getattr(result, name) for result in results) / len(results)
        for name in ("expected", "sampled")
    )
    assert 0.2 < expected < 0.9
    assert sampled == pytest.approx(expected, abs=0.03)


def test_acceptance_equals_the_overlap_of_both_distributions_on_text_of_the_target() -> None:
    draft, target = net(seed=1), net(seed=2)
    batch = prompts()
    result = draft_acceptance(draft, target, batch, END, max_new_tokens=1)
    text = generate_with(
        batch,
        [target],
        lambda logits, uniforms: sample_tokens(logits[0], uniforms[:, 0]),
        END,
        max_new_tokens=1,
    )
    # The first token depends on the prompt only, so any text of one token has these positions.
    is_text = text["valid"]
    overlap = [
        torch.minimum(*(side(text)["logits"].softmax(-1) for side in (draft, target))).sum(-1)
    ]
    assert result.expected == pytest.approx(overlap[0][is_text].mean().item(), abs=1e-6)


def test_proposals_after_a_rejection_are_lost() -> None:
    # Two of three are used, none of two, and one of one.
    is_accepted = [True, True, False, False, True, True]
    assert count_passes(is_accepted, num_draft_tokens=3) == (3, 3 + 2 + 1, 2 + 0 + 1)
    assert count_passes([False], num_draft_tokens=3) == (1, 0, 0)


def test_most_likely_tokens_are_compared() -> None:
    draft, target = net(seed=1, sharp=3.0), net(seed=2, sharp=3.0)
    batch = prompts(size=64)
    result = draft_acceptance(draft, target, batch, END, num_draft_tokens=2, greedy=True)
    text = generate_with(
        batch, [target], lambda logits, _: (logits[0].argmax(-1), logits[0].amax(-1)), END
    )
    same = draft(text)["logits"].argmax(-1) == text["token"]
    rows = [row[valid].tolist() for row, valid in zip(same, text["valid"], strict=True)]
    passes = [count_passes(row, num_draft_tokens=2) for row in rows]
    num_tokens = sum(map(len, rows))
    assert 0.02 < result.sampled < 0.9
    assert result.sampled == pytest.approx(sum(map(sum, rows)) / num_tokens)
    assert result.expected == pytest.approx(result.sampled)
    assert result.sampled_tokens == num_tokens / sum(counted.calls for counted in passes)
    proposed = sum(counted.proposed for counted in passes)
    assert result.used == pytest.approx(sum(counted.used for counted in passes) / proposed)
