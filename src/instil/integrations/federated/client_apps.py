"""Flower ``ClientApp`` of the clients of federated distillation (extra ``federated``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import Tensor

from instil.integrations.federated.consensus import digest, predict
from instil.integrations.federated.local_client import LocalClient
from instil.offline_scheme import ObjectiveSpecs
from instil.training.fit import Training

ClientBuilder = Callable[[Context], LocalClient]
"""Builds the client of a node, for example by ``context.node_config["partition-id"]``."""
MODEL = "model"
"""Key of a client's weights in its own state."""


def averaging_app(client_of: ClientBuilder, num_classes: int) -> ClientApp:
    """Return the clients of FedAvg, FedDF and FedFTG.

    In each round a client loads the weights of the server, trains them on its labels and returns
    them with the number of its samples of each class.

    Args:
        client_of: builds the client of a node.
        num_classes: number of classes.
    """

    def train(message: Message, context: Context) -> Message:
        client = client_of(context)
        client.model.load_state_dict(message.content["arrays"].to_torch_state_dict())
        client.train()
        return _reply(message, client, client.model.state_dict(), num_classes)

    app = ClientApp()
    app.train()(train)
    return app


def consensus_app(
    client_of: ClientBuilder,
    images: Tensor,
    num_classes: int,
    objectives: ObjectiveSpecs = "logit_mae",
    training: Training | None = None,
) -> ClientApp:
    """Return the clients of FedMD (Li & Wang 2019), whose models may differ.

    In each round a client trains on the consensus for the public images (not in the first round),
    then on its labels, and returns its logits for the public images. Its weights stay in the
    ``state`` of its context, under ``"model"``.

    Args:
        client_of: builds the client of a node.
        images: public images (N, ...), the same for all clients.
        num_classes: number of classes.
        objectives: objectives that compare logits with the consensus.
        training: training on the consensus in one round; None: one epoch of AdamW.
    """

    def train(message: Message, context: Context) -> Message:
        client = client_of(context)
        if MODEL in context.state:
            client.model.load_state_dict(context.state[MODEL].to_torch_state_dict())
        received = message.content["arrays"].to_torch_state_dict()
        if "logits" in received:
            seed = message.content["config"]["server-round"]
            digest(
                client.model,
                images,
                received["logits"],
                objectives,
                training=training,
                seed=seed,
            )
        client.train()
        context.state[MODEL] = ArrayRecord(client.model.state_dict())
        return _reply(message, client, {"logits": predict(client.model, images)}, num_classes)

    app = ClientApp()
    app.train()(train)
    return app


def _reply(
    message: Message, client: LocalClient, arrays: Mapping[str, Tensor], num_classes: int
) -> Message:
    """Reply with arrays and the number of samples."""
    counts = client.label_counts(num_classes)
    metrics: dict[str, Any] = {"num-examples": int(counts.sum()), "label-counts": counts.tolist()}
    content = {"arrays": ArrayRecord(dict(arrays)), "metrics": MetricRecord(metrics)}
    return Message(RecordDict(content), reply_to=message)
