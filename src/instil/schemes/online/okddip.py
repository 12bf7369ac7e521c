"""Diverse peers on one trunk, each with a mix of its own as its teacher, and a leader that learns from all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn

from instil.core import Batch, Card, Objective, Objectives, Outputs, to_float32
from instil.schemes.bases.branches import BranchedScheme


def peer_attention(queries: Tensor, keys: Tensor) -> Tensor:
    """How much each peer learns from each, (N, peers, peers): a softmax over the inner products of (N, peers, D), itself among them."""
    return (to_float32(queries) @ to_float32(keys).mT).softmax(-1)


def mixed_logits(logits: Tensor, attention: Tensor) -> Tensor:
    """Each peer's teacher: logits (N, peers, C) and their weights (N, peers, peers) give (N, peers, C)."""
    return attention @ to_float32(logits)


class OKDDip(BranchedScheme):
    """Auxiliary peers on the student's trunk, all stages but the last; each learns from the peers' logits as its own attention mixes them, and the
    student, the group's leader, from their mean (Chen et al. 2020). The student is exported as it is.

    ``peers``: auxiliary ones, beside the leader (3 in the paper).
    ``reduction``: by how much the attention's queries and keys are narrower than the embedding.

    The objectives are those of all against their teachers: cross_entropy and kd (T = 3). Gradients pass through the teachers into attention and
    peers, as in the code: the attention learns by nothing else.
    """

    card = Card(
        "Online Knowledge Distillation with Diverse Peers",
        "https://arxiv.org/abs/1912.00350",
        "AAAI",
        2020,
        source="online",
        algorithms=("multi-teacher", "attention"),
        deviations="The branch-based form. A peer is two convolutions without BatchNorm and a linear layer, where the paper repeats the last stage. "
        "The code's teachers have 1e-7 added to their probabilities, and the weight of kd ramped up.",
        equation=r"\sum_i \mathrm{CE}(z^i, y) + T^2 \sum_{i<m} \mathrm{KL}\left(p_T\left(\sum_j a_{ij} z^j\right) \Vert p^i_T\right) "
        r"+ T^2 \mathrm{KL}(p_T(\bar z) \Vert p^m_T)",
        use="One net and no teacher, in one run, where the branches of one would become alike: each peer has another target.",
        pitfalls="A loss whose gradient does not pass into its teacher leaves the attention as it was drawn. Targets can be met by moving the "
        "teacher, so the label's loss must stay.",
    )

    def __init__(
        self,
        student: nn.Module,
        objectives: Objectives | Mapping[str, Objective],
        peers: Annotated[int, Ge(2)] = 3,
        reduction: Annotated[int, Ge(1)] = 8,
    ):
        super().__init__(student, objectives)
        self.peers, self.reduction = peers, reduction
        self.query: nn.Linear | None = None
        self.key: nn.Linear | None = None
        self.learners["student"] += ("query", "key")

    def branch_stages(self, stages: int) -> list[int]:
        return [stages - 2] * self.peers

    def build_extra(self, ends: list[Outputs], stages: tuple[Tensor, ...]) -> None:
        embedding = to_float32(ends[1]["embedding"])
        width = embedding.shape[1]
        self.query, self.key = (
            nn.Linear(width, max(1, width // self.reduction), bias=False).to(
                embedding.device, embedding.dtype
            )
            for _ in range(2)
        )

    def teachers_for(
        self, ends: list[Outputs], stages: tuple[Tensor, ...], batch: Batch
    ) -> tuple[list[list[Outputs]], dict[str, Tensor]]:
        assert self.query is not None
        assert self.key is not None
        embeddings = torch.stack([end["embedding"] for end in ends[1:]], 1)
        logits = torch.stack([to_float32(end["logits"]) for end in ends[1:]], 1)
        mixed = mixed_logits(logits, peer_attention(self.query(embeddings), self.key(embeddings)))
        return [
            [{"logits": logits.mean(1)}],
            *([{"logits": teacher}] for teacher in mixed.unbind(1)),
        ], {}
