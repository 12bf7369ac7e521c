"""Deep mutual learning: peers that learn from each other while they train."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from instil.core import Batch, Card, Objective, Objectives, Outputs, Scheme, Update, as_net


class Mutual(Scheme):
    """Every net takes every other as its teacher (Zhang et al. 2018: the mean of its losses against the others); the student is exported.

    ``peers``: any number of nets of any architectures, described as the student is.

    Each peer has objectives (adapters, banks) of its own. One forward a net and step: all are updated on
    answers from before the step, where the paper recomputes them after each update.
    """

    card = Card(
        "Deep mutual learning",
        "https://arxiv.org/abs/1706.00384",
        "CVPR",
        2018,
        source="online",
        algorithms=("multi-teacher",),
        holds_graph=True,
        deviations="Algorithm 1 recomputes the predictions after each peer's update; here all peers are updated on the same predictions.",
    )

    def __init__(self, student: nn.Module, peers: Sequence[nn.Module], objectives: Objectives | Mapping[str, Objective]):
        super().__init__(student, None, objectives)
        if not peers:
            raise ValueError("mutual learning needs at least one peer")
        self.peers = nn.ModuleList(as_net(peer) for peer in peers)
        self.peer_objectives = nn.ModuleList(copy.deepcopy(self.objectives) for _ in peers)
        self.learners |= {f"peer{i}": (f"peers.{i}", f"peer_objectives.{i}") for i in range(len(peers))}

    def build(self, batch: Batch) -> None:
        outputs = self._ask_all(batch)
        for i, (learner, objectives) in enumerate(self._sides()):
            shapes = set()
            for other in outputs[:i] + outputs[i + 1 :]:
                objectives.build(outputs[i], other)
                shapes.add(tuple(parameter.shape for parameter in objectives.parameters()))
            if len(shapes) > 1:
                raise ValueError(
                    f"{learner}: one set of adapters cannot fit others of different shapes; take one peer, equal peers, or losses of logits"
                )

    def step(self, batch: Batch) -> Iterator[Update]:
        outputs = self._ask_all(batch)
        fixed = [detached(answer) for answer in outputs]
        for i, (learner, objectives) in enumerate(self._sides()):
            updates = [objectives(outputs[i], other, batch, learner) for other in fixed[:i] + fixed[i + 1 :]]
            losses = {name: torch.stack([update.losses[name] for update in updates]).mean() for name in updates[0].losses}
            yield Update(losses, learner, {f"{learner}/{key}": rows for key, rows in updates[0].keep.items()})

    def after_step(self, kept: dict[str, Tensor]) -> None:
        for learner, objectives in self._sides():
            objectives.after_step({key.removeprefix(f"{learner}/"): rows for key, rows in kept.items() if key.startswith(f"{learner}/")})

    def _ask_all(self, batch: Batch) -> list[Outputs]:
        return [net(batch) for net in (self.student, *self.peers)]

    def _sides(self) -> Iterator[tuple[str, Objectives]]:
        for learner, objectives in zip(self.learners, (self.objectives, *self.peer_objectives), strict=True):
            assert isinstance(objectives, Objectives)
            yield learner, objectives


def detached(outputs: Outputs) -> Outputs:
    """The same outputs, cut from their graph."""
    cut: Outputs = tree_map(lambda part: part.detach() if isinstance(part, Tensor) else part, outputs)
    return cut
