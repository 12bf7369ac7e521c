"""What schemes of several nets that train together share: learners, objectives of each, and one turn for each in a step."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from instil.core import Batch, Objective, Objectives, Outputs, Scheme, Update, as_net


class Peers(Scheme):
    """Each net takes its turn in every step, with objectives (adapters, banks) of its own, against what ``taught`` makes of all nets' outputs."""

    def __init__(self, student: nn.Module, peers: Sequence[nn.Module], objectives: Objectives | Mapping[str, Objective], sequential: bool = False):
        super().__init__(student, None, objectives)
        if not peers:
            raise ValueError("mutual learning needs at least one peer")
        self.sequential = sequential
        self.peers = nn.ModuleList(as_net(peer) for peer in peers)
        self.peer_objectives = nn.ModuleList(copy.deepcopy(self.objectives) for _ in peers)
        self.learners |= {f"peer{i}": (f"peers.{i}", f"peer_objectives.{i}") for i in range(len(peers))}

    def taught(self, outputs: list[Outputs], batch: Batch) -> list[list[Outputs]]:
        """The teachers of each net, made of the detached outputs of all; it learns from the mean of its losses against them."""
        raise NotImplementedError

    def rows(self, outputs: list[Outputs], batch: Batch) -> dict[str, Tensor]:
        """Rows of the scheme itself for ``after_step``."""
        return {}

    def build(self, batch: Batch) -> None:
        outputs = self._ask_all(batch)
        teachers = self.taught(outputs, batch)
        for i, (learner, objectives) in enumerate(self._sides()):
            shapes = set()
            for other in teachers[i]:
                objectives.build(outputs[i], other)
                shapes.add(tuple(parameter.shape for parameter in objectives.parameters()))
            if len(shapes) > 1:
                raise ValueError(
                    f"{learner}: one set of adapters cannot fit others of different shapes; take one peer, equal peers, or losses of logits"
                )

    def step(self, batch: Batch) -> Iterator[Update]:
        outputs = self._ask_all(batch)
        fixed = [detached(answer) for answer in outputs]
        teachers, rows = self.taught(fixed, batch), self.rows(fixed, batch)
        for i, (learner, objectives) in enumerate(self._sides()):
            updates = [objectives(outputs[i], teacher, batch, learner) for teacher in teachers[i]]
            losses = {name: torch.stack([update.losses[name] for update in updates]).mean() for name in updates[0].losses}
            yield Update(losses, learner, {f"{learner}/{key}": kept for key, kept in updates[0].keep.items()} | ({} if i else rows))
            if self.sequential and i < len(self.peers):
                with torch.no_grad():
                    fixed[i] = self._nets()[i](batch)  # the weights of the others have not moved since they were asked
                    teachers = self.taught(fixed, batch)

    def after_step(self, kept: dict[str, Tensor]) -> None:
        for learner, objectives in self._sides():
            objectives.after_step({key.removeprefix(f"{learner}/"): rows for key, rows in kept.items() if key.startswith(f"{learner}/")})

    def _nets(self) -> list[nn.Module]:
        return [self.student, *self.peers]

    def _ask_all(self, batch: Batch) -> list[Outputs]:
        return [net(batch) for net in self._nets()]

    def _sides(self) -> Iterator[tuple[str, Objectives]]:
        for learner, objectives in zip(self.learners, (self.objectives, *self.peer_objectives), strict=True):
            assert isinstance(objectives, Objectives)
            yield learner, objectives


def detached(outputs: Outputs) -> Outputs:
    """The same outputs, cut from their graph."""
    cut: Outputs = tree_map(lambda part: part.detach() if isinstance(part, Tensor) else part, outputs)
    return cut
