"""What schemes of several nets that train together share: learners, objectives of each, and one turn for each in a step."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from instil.core import Batch, Objective, Objectives, Outputs, Scheme, Update, as_net
from instil.teachers.ema import Ema


class PeerScheme(Scheme):
    """Each net takes its turn in every step, with objectives (adapters, banks) of its own for each of its teachers, which ``teachers_for`` makes of
    all nets' outputs; with ``ema``, of those of their moving averages."""

    def __init__(
        self,
        student: nn.Module,
        peers: Sequence[nn.Module],
        objectives: Objectives | Mapping[str, Objective],
        sequential: bool = False,
        ema: float | None = None,
    ):
        super().__init__(student, None, objectives)
        if not peers:
            raise ValueError("mutual learning needs at least one peer")
        if ema is not None and sequential:
            raise ValueError(
                "scheme.sequential: averages move after the step, so that none can learn from what another's says after its update"
            )
        self.sequential = sequential
        self.peers = nn.ModuleList(as_net(peer) for peer in peers)
        self.averages = nn.ModuleList(
            [] if ema is None else [Ema(net, ema) for net in self._nets()]
        )
        self.peer_objectives = nn.ModuleList(copy.deepcopy(self.objectives) for _ in peers)
        self.further_objectives = nn.ModuleList(nn.ModuleList() for _ in self._nets())
        self.learners = {"student": ("student", "objectives", "further_objectives.0")}
        self.learners |= {
            f"peer{i}": (f"peers.{i}", f"peer_objectives.{i}", f"further_objectives.{i + 1}")
            for i in range(len(peers))
        }

    def teachers_for(self, outputs: list[Outputs], batch: Batch) -> list[list[Outputs]]:
        """The teachers of each net, made of the detached outputs of all; it learns from the mean of its losses against them."""
        raise NotImplementedError

    def rows(self, outputs: list[Outputs], batch: Batch) -> dict[str, Tensor]:
        """Rows of the scheme itself for ``after_step``."""
        return {}

    def build(self, batch: Batch) -> None:
        outputs = self._ask_all(batch)
        teachers = self.teachers_for(outputs, batch)
        for i, further in enumerate(self.further_objectives):
            assert isinstance(further, nn.ModuleList)
            further.extend(copy.deepcopy(self.objectives) for _ in teachers[i][1:])
        for i, (_, each) in enumerate(self._sides()):
            for objectives, teacher in zip(each, teachers[i], strict=True):
                objectives.build(outputs[i], teacher)

    def step(self, batch: Batch) -> Iterator[Update]:
        outputs = self._ask_all(batch)
        fixed = self._fixed(outputs, batch)
        teachers, rows = self.teachers_for(fixed, batch), self.rows(fixed, batch)
        for i, (learner, each) in enumerate(self._sides()):
            updates = [
                objectives(outputs[i], teacher, batch, learner)
                for objectives, teacher in zip(each, teachers[i], strict=True)
            ]
            losses = {
                name: torch.stack([update.losses[name] for update in updates]).mean()
                for name in updates[0].losses
            }
            kept = {
                f"{learner}/{number}/{key}": value
                for number, update in enumerate(updates)
                for key, value in update.state_updates.items()
            }
            yield Update(losses, learner, kept | ({} if i else rows))
            if self.sequential and i < len(self.peers):
                with torch.no_grad():
                    fixed[i] = self._nets()[i](
                        batch
                    )  # the weights of the others have not moved since they were asked
                    teachers = self.teachers_for(fixed, batch)

    def after_step(self, gathered_rows: dict[str, Tensor]) -> None:
        for learner, each in self._sides():
            for number, objectives in enumerate(each):
                start = f"{learner}/{number}/"
                objectives.after_step(
                    {
                        key.removeprefix(start): rows
                        for key, rows in gathered_rows.items()
                        if key.startswith(start)
                    }
                )
        for slow, net in zip(self.averages, self._nets(), strict=False):
            assert isinstance(slow, Ema)
            slow.follow(net)

    def _nets(self) -> list[nn.Module]:
        return [self.student, *self.peers]

    def _ask_all(self, batch: Batch) -> list[Outputs]:
        return [net(batch) for net in self._nets()]

    def _fixed(self, outputs: list[Outputs], batch: Batch) -> list[Outputs]:
        """What each net says as a teacher, without its graph: itself, or its moving average."""
        return [slow(batch) for slow in self.averages] or [
            detach_outputs(answer) for answer in outputs
        ]

    def _sides(self) -> Iterator[tuple[str, list[Objectives]]]:
        """Each learner with its objectives, one for each of its teachers."""
        for learner, first, further in zip(
            self.learners,
            (self.objectives, *self.peer_objectives),
            self.further_objectives,
            strict=True,
        ):
            assert isinstance(first, Objectives)
            assert isinstance(further, nn.ModuleList)
            yield learner, [first, *(one for one in further if isinstance(one, Objectives))]


def detach_outputs(outputs: Outputs) -> Outputs:
    """The same outputs, cut from their graph."""
    cut: Outputs = tree_map(
        lambda part: part.detach() if isinstance(part, Tensor) else part, outputs
    )
    return cut
