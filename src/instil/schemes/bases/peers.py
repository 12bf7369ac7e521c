"""Base class of schemes in which several networks train together and learn from each other."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from instil.core import Batch, Objective, Objectives, Outputs, Scheme, Update, as_net
from instil.modules.eval_mode import frozen_statistics
from instil.teachers.ema import Ema


class PeerScheme(Scheme):
    """Base class of schemes with peers: every network has one update in each step.

    ``teachers_for`` computes the teachers of each network from the outputs of all networks, or of
    their moving averages. Each network has its own copy of the objectives, with adapters and banks,
    for each of its teachers.

    Args:
        student: the first network, which is exported.
        peers: the other networks.
        objectives: losses of each network.
        sequential: whether a network learns from the peers after their updates in the same step.
        ema: decay of the moving averages that act as teachers. None: the networks themselves.

    Raises:
        ValueError: if there are no peers, or both ``sequential`` and ``ema`` are set.
    """

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
            raise ValueError(
                "peers: mutual learning needs at least one peer. Expected a list of networks, got "
                "none"
            )
        if ema is not None and sequential:
            raise ValueError(
                "scheme.sequential: averages move after the step, so a network cannot learn from "
                "the updated average of another one. Set either sequential or ema"
            )
        self.sequential = sequential
        self.peers = nn.ModuleList(as_net(peer) for peer in peers)
        averages = [] if ema is None else [Ema(net, ema) for net in self._nets()]
        self.averages = nn.ModuleList(averages)
        # Adapters and state of an objective belong to one pair of network and teacher, so each pair
        # has a copy.
        self.peer_objectives = nn.ModuleList(copy.deepcopy(self.objectives) for _ in peers)
        self.further_objectives = nn.ModuleList(nn.ModuleList() for _ in self._nets())
        self.learners = {"student": ("student", "objectives", "further_objectives.0")}
        self.learners |= {
            f"peer{i}": (f"peers.{i}", f"peer_objectives.{i}", f"further_objectives.{i + 1}")
            for i in range(len(peers))
        }

    def teachers_for(self, outputs: list[Outputs], batch: Batch) -> list[list[Outputs]]:
        """Compute the teachers of each network.

        Args:
            outputs: detached outputs of all networks, the student first.
            batch: the batch of this step.

        Returns:
            The teachers of each network. Its loss is the mean over them.
        """
        raise NotImplementedError

    def rows(self, outputs: list[Outputs], batch: Batch) -> dict[str, Tensor]:
        """Compute rows of the scheme itself for ``after_step``.

        Args:
            outputs: detached outputs of all networks, the student first.
            batch: the batch of this step.

        Returns:
            Rows by name; none by default.
        """
        return {}

    def build(self, batch: Batch) -> None:
        outputs = self._forward_all(batch)
        teachers = self.teachers_for(outputs, batch)
        for i, further in enumerate(self.further_objectives):
            assert isinstance(further, nn.ModuleList)
            further.extend(copy.deepcopy(self.objectives) for _ in teachers[i][1:])
        for i, (_, objectives) in enumerate(self._learner_objectives()):
            for objective, teacher in zip(objectives, teachers[i], strict=True):
                objective.build(outputs[i], teacher)

    def step(self, batch: Batch) -> Iterator[Update]:
        outputs = self._forward_all(batch)
        # No gradient flows into a network that teaches.
        fixed = self._teacher_outputs(outputs, batch)
        teachers = self.teachers_for(fixed, batch)
        rows = self.rows(fixed, batch)
        for i, (learner, objectives) in enumerate(self._learner_objectives()):
            updates = [
                objective(outputs[i], teacher, batch, learner)
                for objective, teacher in zip(objectives, teachers[i], strict=True)
            ]
            losses = {
                name: torch.stack([update.losses[name] for update in updates]).mean()
                for name in updates[0].losses
            }
            state_updates = {}
            for index, update in enumerate(updates):
                for key, value in update.state_updates.items():
                    state_updates[f"{learner}/{index}/{key}"] = value
            # The rows of the scheme itself are passed on once per step, with the first update.
            yield Update(losses, learner, state_updates | ({} if i else rows))
            if self.sequential and i < len(self.peers):
                # Only the network of this turn has changed since the forward passes above. Its
                # running statistics have seen this batch already.
                net = self._nets()[i]
                with torch.no_grad(), frozen_statistics(net):
                    fixed[i] = net(batch)
                    teachers = self.teachers_for(fixed, batch)

    def after_step(self, gathered_rows: dict[str, Tensor]) -> None:
        for learner, objectives in self._learner_objectives():
            for index, objective in enumerate(objectives):
                prefix = f"{learner}/{index}/"
                own_rows = {
                    key.removeprefix(prefix): rows
                    for key, rows in gathered_rows.items()
                    if key.startswith(prefix)
                }
                objective.after_step(own_rows)
        # Not strict: without ema there are no averages.
        for average, net in zip(self.averages, self._nets(), strict=False):
            assert isinstance(average, Ema)
            average.follow(net)

    def _nets(self) -> list[nn.Module]:
        return [self.student, *self.peers]

    def _forward_all(self, batch: Batch) -> list[Outputs]:
        return [net(batch) for net in self._nets()]

    def _teacher_outputs(self, outputs: list[Outputs], batch: Batch) -> list[Outputs]:
        """Outputs of the moving averages, or the detached outputs of the networks."""
        if self.averages:
            return [average(batch) for average in self.averages]
        return [detach_outputs(net_outputs) for net_outputs in outputs]

    def _learner_objectives(self) -> Iterator[tuple[str, list[Objectives]]]:
        """Each learner with its objectives, one copy for each of its teachers."""
        for learner, first, further in zip(
            self.learners,
            (self.objectives, *self.peer_objectives),
            self.further_objectives,
            strict=True,
        ):
            assert isinstance(first, Objectives)
            assert isinstance(further, nn.ModuleList)
            others = [module for module in further if isinstance(module, Objectives)]
            yield learner, [first, *others]


def detach_outputs(outputs: Outputs) -> Outputs:
    """Detach all tensors of outputs."""
    detached: Outputs = tree_map(
        lambda part: part.detach() if isinstance(part, Tensor) else part, outputs
    )
    return detached
