"""FedMD: clients agree on logits for public samples (Li & Wang 2019)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from instil.core import Batch, Net, Outputs, to_float32
from instil.distillation import distil
from instil.modules.eval_mode import eval_mode
from instil.offline_scheme import ObjectiveSpecs
from instil.training.fit import Training


@torch.no_grad()
def predict(model: nn.Module, images: Tensor, batch_size: int = 256) -> Tensor:
    """Compute the logits of a classifier in eval mode.

    Args:
        model: classifier, whose mode does not change.
        images: (N, ...).
        batch_size: images per forward pass.

    Returns:
        (N, C) on the CPU, in float32 or better.
    """
    device = next((parameter.device for parameter in model.parameters()), images.device)
    with eval_mode(model):
        parts = [
            to_float32(model(part.to(device))).cpu() for part in torch.split(images, batch_size)
        ]
    return torch.cat(parts)


def consensus(client_logits: Sequence[Tensor], weights: Sequence[float] | None = None) -> Tensor:
    """Average the logits of clients (Li & Wang 2019, Algorithm 1, aggregate).

    Args:
        client_logits: logits (N, C) of each client for the same public samples.
        weights: weight of each client, >= 0; None: equal weights, as in the paper.

    Returns:
        (N, C).

    Raises:
        ValueError: if there is no client, shapes differ, or the weights do not fit.

    Example:
        >>> import torch
        >>> consensus([torch.eye(2), torch.zeros(2, 2)])
        tensor([[0.5000, 0.0000],
                [0.0000, 0.5000]])
    """
    if not client_logits:
        raise ValueError("client_logits: is empty. Expected the logits of at least one client")
    shapes = [tuple(logits.shape) for logits in client_logits]
    for index, shape in enumerate(shapes):
        if shape != shapes[0]:
            raise ValueError(
                f"client_logits: client {index} has shape {shape}. Expected {shapes[0]}, as client "
                "0. All clients must have the same public samples and classes"
            )
    stacked = torch.stack([to_float32(logits) for logits in client_logits])
    if weights is None:
        return stacked.mean(0)
    shares = torch.tensor(weights, dtype=stacked.dtype)
    if len(shares) != len(stacked) or bool((shares < 0).any()) or not bool(shares.sum() > 0):
        raise ValueError(
            f"weights: wrong values. Expected {len(stacked)} numbers >= 0 with a positive sum, "
            f"got {list(weights)}"
        )
    mean: Tensor = torch.tensordot(shares / shares.sum(), stacked, 1)
    return mean


def digest(
    model: nn.Module,
    images: Tensor,
    logits: Tensor,
    objectives: ObjectiveSpecs = "logit_mae",
    *,
    training: Training | None = None,
    batch_size: int = 64,
    seed: int = 0,
) -> None:
    """Train a client on public samples to reproduce the consensus (Li & Wang 2019, digest).

    Args:
        model: classifier, which is trained in place and left in eval mode.
        images: public images (N, ...).
        logits: consensus (N, C).
        objectives: objectives that compare logits, as in ``instil.distil``. The authors' code uses
            the mean absolute error.
        training: settings; None: one epoch of AdamW with learning rate 1e-3.
        batch_size: images per step.
        seed: seed of the order of the images.

    Raises:
        ValueError: if the numbers of images and logits differ.
    """
    if len(images) != len(logits):
        raise ValueError(
            f"logits: wrong number of rows. Expected {len(images)}, one for each public image, "
            f"got {len(logits)}"
        )
    loader = shuffled_batches(batch_size, seed, images, logits)
    distil(
        Net(nn.Identity(), _consensus_of),
        model,
        loader,
        objectives,
        training=training or Training(epochs=1),
        names=("image", "consensus"),
        progress=False,
    )


def shuffled_batches(
    batch_size: int, seed: int, *columns: Tensor
) -> DataLoader[tuple[Tensor, ...]]:
    """Return a loader of shuffled batches, without an incomplete last one.

    Args:
        batch_size: rows per batch.
        seed: seed of the order.
        columns: tensors with the same number of rows.

    Raises:
        ValueError: if there are no rows.
    """
    if not len(columns[0]):
        raise ValueError("images: is empty. Expected at least one public image")
    return DataLoader(
        TensorDataset(*columns),
        batch_size,
        shuffle=True,
        drop_last=len(columns[0]) >= batch_size,
        generator=torch.Generator().manual_seed(seed),
    )


def _consensus_of(_model: nn.Module, batch: Batch) -> Outputs:
    """Return the logits that are in the batch, as outputs of a teacher."""
    return {"logits": batch["consensus"]}
