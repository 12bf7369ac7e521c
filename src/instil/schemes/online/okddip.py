"""OKDDip: diverse peers on one trunk with attention-based teachers, and a leader."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Batch, Card, Objective, Objectives, Outputs, to_float32
from instil.schemes.bases.branches import BranchedScheme


def peer_attention(queries: Tensor, keys: Tensor) -> Tensor:
    """Compute the weight of each peer in the teacher of each peer (Chen et al. 2020).

    Args:
        queries: (N, peers, D).
        keys: (N, peers, D).

    Returns:
        Softmax over the inner products (N, peers, peers); a peer has a weight in its own teacher.
    """
    return (to_float32(queries) @ to_float32(keys).mT).softmax(-1)


def mixed_logits(logits: Tensor, attention: Tensor) -> Tensor:
    """Compute the teacher logits (N, peers, C) of each peer.

    Args:
        logits: logits of the peers (N, peers, C).
        attention: weights (N, peers, peers), see ``peer_attention``.
    """
    return attention @ to_float32(logits)


class OKDDip(BranchedScheme):
    """Auxiliary peers on the trunk of the student, which is the group leader (Chen et al. 2020).

    The peers share all stages of the student but the last. Each peer learns from an attention-based
    mean of the peers' logits, the leader from their plain mean. The student is exported unchanged.

    The objectives compare each network with its teacher: cross_entropy and kd (T = 3). Gradients
    pass through the teachers into attention and peers, as in the authors' code: no other loss
    trains the attention.
    """

    card = Card(
        "Online Knowledge Distillation with Diverse Peers",
        "https://arxiv.org/abs/1912.00350",
        "AAAI",
        2020,
        source="online",
        algorithms=("multi-teacher", "attention"),
        deviations="The branch-based form. A peer is two convolutions without BatchNorm and a "
        "linear layer; the paper repeats the last stage. The authors' code adds 1e-7 to the "
        "probabilities of the teachers and ramps up the weight of kd.",
        equation=r"\sum_i \mathrm{CE}(z^i, y) + T^2 \sum_{i<m} "
        r"\mathrm{KL}\left(p_T\left(\sum_j a_{ij} z^j\right) \Vert p^i_T\right) "
        r"+ T^2 \mathrm{KL}(p_T(\bar z) \Vert p^m_T)",
        use="For training without a teacher, in one run, where the branches of one would become "
        "similar: each peer has a different target.",
        pitfalls="With a loss that passes no gradient into its teacher, the attention keeps its "
        "random initial weights. The networks can also reduce the loss by changing the teacher, so "
        "keep the label loss.",
    )

    def __init__(
        self,
        student: nn.Module,
        objectives: Objectives | Mapping[str, Objective],
        peers: Annotated[
            int, Ge(2), Doc("number of auxiliary peers, without the leader (3 in the paper)")
        ] = 3,
        reduction: Annotated[
            int, Ge(1), Doc("ratio of the embedding width to the width of queries and keys")
        ] = 8,
    ):
        super().__init__(student, objectives)
        self.peers = peers
        self.reduction = reduction
        self.query: nn.Linear | None = None
        self.key: nn.Linear | None = None
        self.learners["student"] += ("query", "key")

    def branch_stages(self, stages: int) -> list[int]:
        return [stages - 2] * self.peers

    def build_extra(self, ends: list[Outputs], stages: tuple[Tensor, ...]) -> None:
        embedding = to_float32(ends[1]["embedding"])
        self.query = self._projection(embedding)
        self.key = self._projection(embedding)

    def _projection(self, embedding: Tensor) -> nn.Linear:
        width = embedding.shape[1]
        linear = nn.Linear(width, max(1, width // self.reduction), bias=False)
        return linear.to(embedding.device, embedding.dtype)

    def teachers_for(
        self, ends: list[Outputs], stages: tuple[Tensor, ...], batch: Batch
    ) -> tuple[list[list[Outputs]], dict[str, Tensor]]:
        assert self.query is not None
        assert self.key is not None
        embeddings = torch.stack([end["embedding"] for end in ends[1:]], 1)
        logits = torch.stack([to_float32(end["logits"]) for end in ends[1:]], 1)
        attention = peer_attention(self.query(embeddings), self.key(embeddings))
        mixed = mixed_logits(logits, attention)
        leader_teacher: list[Outputs] = [{"logits": logits.mean(1)}]
        peer_teachers: list[list[Outputs]] = [[{"logits": mix}] for mix in mixed.unbind(1)]
        return [leader_teacher, *peer_teachers], {}
