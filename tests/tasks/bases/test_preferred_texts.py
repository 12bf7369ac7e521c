"""Share of preference pairs whose preferred text is the more likely one."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from instil.core import Batch, Net, Outputs
from instil.data.sources.arithmetic import arithmetic
from instil.tasks.bases.preferred_texts import preferred_texts
from instil.tasks.language import Language


def frequencies(model: nn.Module, batch: Batch) -> Outputs:
    """Logits of one distribution for all positions."""
    logits = next(model.parameters())
    return {"logits": logits.expand(*batch["input_ids"].shape, -1)}


def test_the_likelihoods_per_token_are_compared() -> None:
    samples = arithmetic(2, 40, 20, rationale="preference").test
    model = nn.Module()
    generator = torch.Generator().manual_seed(0)
    model.logits = nn.Parameter(torch.randn(samples.vocabulary, generator=generator))
    log_probs = model.logits.detach().log_softmax(0).tolist()
    count = 0
    for row in range(len(samples)):
        batch = samples.__getitems__([row])
        means = []
        for prefix in ("", "rejected_"):
            tokens = batch[f"{prefix}label"][batch[f"{prefix}valid"]].tolist()
            means.append(math.fsum(log_probs[token] for token in tokens) / len(tokens))
        count += means[0] > means[1]
    assert 0 < count < 20
    net = Net(model, frequencies)
    assert preferred_texts(net, samples) == {"preferred": count / 20}
    task = Language()
    assert task.evaluate_answers(net, samples)["preferred"] == count / 20


def test_data_without_pairs() -> None:
    splits = arithmetic(2, 40, 20)
    assert preferred_texts(nn.Linear(1, 1), splits.test) == {}
    task = Language()
    task.add_metrics({}, "preferred")
    with pytest.raises(ValueError, match=r"^headline: preferred .* Set data\.preferences=true"):
        task.set_data(splits)
    task.set_data(arithmetic(2, 40, 20, rationale="preference"))
