"""Attention over the peers, and the losses of peers and leader."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.objectives.logits.kd import KD
from instil.schemes.online.okddip import OKDDip, mixed_logits, peer_attention
from instil.testing import check_scheme
from tests.schemes.stages import images, staged, timed


def test_contracts() -> None:
    check_scheme(lambda: OKDDip(staged(), {"cross_entropy": CrossEntropy(), "kd": KD()}), images)


def test_teachers_are_weighed_by_the_softmax_of_inner_products() -> None:
    random = np.random.default_rng(0)
    queries = random.normal(size=(2, 3, 4))
    keys = random.normal(size=(2, 3, 4))
    logits = random.normal(size=(2, 3, 5))
    attention = peer_attention(torch.tensor(queries), torch.tensor(keys))
    mixed = mixed_logits(torch.tensor(logits), attention)
    for n in range(2):
        for i in range(3):
            scores = np.exp([queries[n, i] @ keys[n, j] for j in range(3)])
            assert np.allclose(attention[n, i], scores / scores.sum())
            assert np.allclose(
                mixed[n, i], sum(scores[j] * logits[n, j] for j in range(3)) / scores.sum()
            )


def test_the_leader_learns_from_the_mean_and_the_peers_from_their_mixes() -> None:
    scheme, batch = OKDDip(staged(), {"kd": KD(1)}, peers=2, reduction=2), timed()
    scheme.prepare(batch)
    (update,) = scheme.step(batch)
    leader, *peers = scheme.branch_outputs(scheme.student(batch))
    assert scheme.query is not None
    assert scheme.key is not None
    assert scheme.query.weight.shape == (6, 12)
    logits, embeddings = (
        torch.stack([peer[role] for peer in peers], 1) for role in ("logits", "embedding")
    )
    mixed = mixed_logits(logits, peer_attention(scheme.query(embeddings), scheme.key(embeddings)))
    pairs = [(leader["logits"], logits.mean(1)), *((logits[:, i], mixed[:, i]) for i in range(2))]
    expected = sum(
        F.kl_div(student.log_softmax(1), teacher.softmax(1), reduction="batchmean")
        for student, teacher in pairs
    )
    assert torch.allclose(update.losses["kd"], expected, atol=1e-6)  # type: ignore[arg-type]
    update.losses["kd"].backward()
    assert scheme.query.weight.grad is not None
    assert scheme.query.weight.grad.abs().sum() > 0, "the attention learns through the teachers"
    assert scheme.export() is scheme.student
