"""Flower strategies of federated distillation (extra ``federated``)."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from flwr.app import ArrayRecord, Message, MetricRecord
from flwr.serverapp.strategy import FedAvg
from torch import Tensor, nn

from instil.integrations.federated.consensus import consensus
from instil.integrations.federated.fusion import fuse
from instil.integrations.federated.hard_samples import HardSampleFineTuning
from instil.offline_scheme import ObjectiveSpecs
from instil.training.fit import Training

Aggregate = tuple[ArrayRecord | None, MetricRecord | None]


class FedMD(FedAvg):
    """Consensus of the clients on public samples (Li & Wang 2019), with ``consensus_app``.

    The arrays are the logits of the public samples, not weights: ``start`` begins with an empty
    ``ArrayRecord``. The consensus is the mean of the clients, whatever their number of samples.

    Args:
        fraction_evaluate: share of the clients that evaluate; 0: there is no evaluation.
        options: further options of Flower's ``FedAvg``.
    """

    def __init__(self, *, fraction_evaluate: float = 0.0, **options: Any) -> None:
        super().__init__(fraction_evaluate=fraction_evaluate, **options)

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Aggregate:
        """Return the consensus of the clients that replied, and Flower's metrics."""
        received = list(replies)
        arrays, metrics = super().aggregate_train(server_round, received)
        if arrays is None:
            return None, metrics
        logits = [arrays_of(reply)["logits"] for reply in _without_errors(received)]
        return ArrayRecord({"logits": consensus(logits)}), metrics


class FedDF(FedAvg):
    """Average of the weights, then ensemble distillation (Lin et al. 2020), with ``averaging_app``.

    Args:
        model: network of server and clients; its weights are overwritten.
        images: unlabelled images of the server (N, ...).
        objectives: as in ``fuse``.
        training: training of one round, as in ``fuse``.
        batch_size: images per step.
        fraction_evaluate: share of the clients that evaluate; 0: there is no evaluation.
        options: further options of Flower's ``FedAvg``.
    """

    def __init__(
        self,
        model: nn.Module,
        images: Tensor,
        *,
        objectives: ObjectiveSpecs | None = None,
        training: Training | None = None,
        batch_size: int = 64,
        fraction_evaluate: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(fraction_evaluate=fraction_evaluate, **options)
        self.model = model
        self.images = images
        self.objectives = objectives
        self.training = training
        self.batch_size = batch_size

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Aggregate:
        """Return the weights of the distilled server model, and Flower's metrics."""
        received = list(replies)
        arrays, metrics = super().aggregate_train(server_round, received)
        if arrays is None:
            return None, metrics
        clients = _client_models(self.model, received)
        self.model.load_state_dict(arrays.to_torch_state_dict())
        fuse(
            self.model,
            clients,
            self.images,
            self.objectives,
            training=self.training,
            batch_size=self.batch_size,
            seed=server_round,
        )
        return ArrayRecord(self.model.state_dict()), metrics


class FedFTG(FedAvg):
    """Average of the weights, then fine-tuning without data (Zhang et al. 2022).

    The clients are those of ``averaging_app``, which also return the number of their samples of
    each class. The server needs no images.

    Args:
        model: network of server and clients; its weights are overwritten.
        fine_tuning: generator and settings of the fine-tuning.
        fraction_evaluate: share of the clients that evaluate; 0: there is no evaluation.
        options: further options of Flower's ``FedAvg``.
    """

    def __init__(
        self,
        model: nn.Module,
        fine_tuning: HardSampleFineTuning,
        *,
        fraction_evaluate: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(fraction_evaluate=fraction_evaluate, **options)
        self.model = model
        self.fine_tuning = fine_tuning

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Aggregate:
        """Return the weights of the fine-tuned global model, and Flower's metrics."""
        received = list(replies)
        arrays, metrics = super().aggregate_train(server_round, received)
        if arrays is None:
            return None, metrics
        clients = _client_models(self.model, received)
        metric_records = [reply.content["metrics"] for reply in _without_errors(received)]
        counts = torch.tensor([record["label-counts"] for record in metric_records])
        self.model.load_state_dict(arrays.to_torch_state_dict())
        self.fine_tuning(self.model, clients, counts)
        return ArrayRecord(self.model.state_dict()), metrics


def arrays_of(reply: Message) -> dict[str, Tensor]:
    """Return the arrays of a reply as tensors."""
    tensors: dict[str, Tensor] = reply.content["arrays"].to_torch_state_dict()
    return tensors


def _without_errors(replies: Iterable[Message]) -> list[Message]:
    return [reply for reply in replies if not reply.has_error()]


def _client_models(model: nn.Module, replies: Iterable[Message]) -> list[nn.Module]:
    """Return a copy of the model with the weights of each client that replied."""
    models = []
    for reply in _without_errors(replies):
        client = copy.deepcopy(model)
        client.load_state_dict(arrays_of(reply))
        models.append(client)
    return models
