"""Federated distillation: FedMD, FedDF and FedFTG.

The functions here are the local training of clients and the fusion on a server, and need torch
alone. ``client_apps``, ``strategies`` and ``in_process_grid`` connect them to Flower (extra
``federated``).
"""

from instil.integrations.federated.consensus import consensus, digest, predict
from instil.integrations.federated.fusion import fuse
from instil.integrations.federated.generated_samples import (
    class_shares,
    client_cross_entropy,
    diversity_loss,
    label_distribution,
    model_discrepancy,
)
from instil.integrations.federated.hard_samples import HardSampleFineTuning
from instil.integrations.federated.local_client import LocalClient, label_counts

__all__ = [
    "HardSampleFineTuning",
    "LocalClient",
    "class_shares",
    "client_cross_entropy",
    "consensus",
    "digest",
    "diversity_loss",
    "fuse",
    "label_counts",
    "label_distribution",
    "model_discrepancy",
    "predict",
]
