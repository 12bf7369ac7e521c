"""Flower ``Grid`` that runs the clients in this process, without ray (extra ``federated``)."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity


class InProcessGrid(Grid):
    """Simulation of clients one after another in this process, for tests and small studies.

    Each client has its own context, whose ``state`` lasts as long as the grid. An exception in a
    client ends the run.

    Args:
        app: program of the clients.
        num_clients: number of clients; ``node_config`` has ``partition-id`` from 0 and
            ``num-partitions``.

    Attributes:
        contexts: context of each client by node id, which counts from 1.
    """

    def __init__(self, app: ClientApp, num_clients: int) -> None:
        self.app = app
        self.contexts: dict[int, Context] = {}
        for index in range(num_clients):
            config = {"partition-id": index, "num-partitions": num_clients}
            self.contexts[index + 1] = Context(0, index + 1, config, RecordDict(), {})
        self._replies: dict[str, Message] = {}
        self._counter = itertools.count()
        # Flower sets the identity in the processes that it starts; messages need it.
        TaskIdentity.run_id = 0
        TaskIdentity.node_id = 0
        TaskIdentity.task_id = 0

    def set_run(self, run: Any) -> None:
        """Raise an error: there is no run of a SuperLink."""
        raise NotImplementedError("InProcessGrid: it has no SuperLink, and no run to set")

    @property
    def run(self) -> Any:
        """There is no run of a SuperLink."""
        raise NotImplementedError("InProcessGrid: it has no SuperLink, and no run")

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Return a message to a client."""
        return Message(content, dst_node_id, message_type, group_id=group_id, ttl=ttl)

    def get_node_ids(self) -> Iterable[int]:
        """Return the ids of all clients."""
        return list(self.contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Run the clients of the messages; return one id for each reply."""
        ids = []
        for message in messages:
            ids.append(str(next(self._counter)))
            self._replies[ids[-1]] = self._reply(message)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies of ``push_messages``."""
        return [self._replies.pop(name) for name in message_ids if name in self._replies]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Run the clients of the messages; ``timeout`` has no effect."""
        return [self._reply(message) for message in messages]

    def _reply(self, message: Message) -> Message:
        return self.app(message, self.contexts[message.metadata.dst_node_id])
