"""FedDF: ensemble distillation of the clients into the server (Lin et al. 2020)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from instil.distillation import distil
from instil.engine import Optimization
from instil.integrations.federated.consensus import shuffled_batches
from instil.offline_scheme import ObjectiveSpecs
from instil.training.fit import Training


def fuse(
    student: nn.Module,
    clients: Sequence[nn.Module],
    images: Tensor,
    objectives: ObjectiveSpecs | None = None,
    *,
    training: Training | None = None,
    batch_size: int = 64,
    seed: int = 0,
) -> None:
    """Distil the mean logits of the clients into a student on unlabelled images.

    Ensemble distillation of FedDF (Lin et al. 2020, Algorithm 1 and AVGLOGITS): KL divergence from
    the softmax of the clients' mean logits to the softmax of the student. In FedDF the student
    starts from the mean of the clients' weights. Clients may have other architectures.

    Args:
        student: classifier, which is trained in place and left in eval mode.
        clients: classifiers with the same classes, which do not change.
        images: unlabelled images (N, ...).
        objectives: as in ``instil.distil``; None: ``kd`` at temperature 1, as in the paper.
        training: settings; None: 1,000 steps of Adam with learning rate 1e-3 and a cosine schedule.
        batch_size: images per step.
        seed: seed of the order of the images.

    Raises:
        ValueError: if there is no client or no image.
    """
    if not clients:
        raise ValueError("clients: is empty. Expected at least one model")
    default = Training(steps=1000, optimizer=Optimization("adam", {"lr": 1e-3}))
    distil(
        list(clients),
        student,
        shuffled_batches(batch_size, seed, images),
        {"kd": {"temperature": 1.0}} if objectives is None else objectives,
        training=training or default,
        names=("image",),
        progress=False,
    )
