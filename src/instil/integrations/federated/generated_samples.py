"""Losses of FedFTG (Zhang et al. 2022) on generated samples with sampled labels."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.core import to_float32
from instil.functional.ensembles import teacher_divergences


def label_distribution(counts: Tensor) -> Tensor:
    """Distribution of the labels of all clients (Zhang et al. 2022, customized label sampling).

    Args:
        counts: number of samples of each client and class (K, C).

    Returns:
        Probability of each class (C,).

    Raises:
        ValueError: if a count is negative, or all are 0.

    Example:
        >>> import torch
        >>> label_distribution(torch.tensor([[3, 1], [0, 4]]))
        tensor([0.3750, 0.6250])
    """
    _check_counts(counts)
    total = counts.sum(0).float()
    return total / total.sum()


def class_shares(counts: Tensor) -> Tensor:
    """Share of each client in the samples of a class (Zhang et al. 2022, class-level ensemble).

    Args:
        counts: number of samples of each client and class (K, C).

    Returns:
        (K, C); the sum over the clients is 1, or 0 for a class without samples.

    Raises:
        ValueError: if a count is negative, or all are 0.

    Example:
        >>> import torch
        >>> class_shares(torch.tensor([[3, 1], [0, 4]]))
        tensor([[1.0000, 0.2000],
                [0.0000, 0.8000]])
    """
    _check_counts(counts)
    return counts / counts.sum(0).clamp(min=1)


def _check_counts(counts: Tensor) -> None:
    is_wrong = counts.ndim != 2 or bool((counts < 0).any()) or not bool((counts > 0).any())
    if is_wrong:
        raise ValueError(
            "counts: wrong values. Expected the numbers of samples >= 0 of each client and class "
            f"(K, C), not all 0, got {counts.tolist()}"
        )


def model_discrepancy(student_logits: Tensor, client_logits: Tensor, shares: Tensor) -> Tensor:
    """Weighted KL divergence from each client to the global model (Zhang et al. 2022, L_md).

    Args:
        student_logits: logits of the global model (N, C).
        client_logits: logits of the clients (K, N, C).
        shares: weight of each client for each sample (K, N).

    Returns:
        (N,).

    Raises:
        ValueError: if the shapes do not fit.

    Example:
        >>> import torch
        >>> model_discrepancy(torch.zeros(1, 3), torch.eye(3)[None, :1], torch.ones(1, 1))
        tensor([0.1233])
    """
    return (shares * teacher_divergences(student_logits, client_logits, 1.0)).sum(0)


def client_cross_entropy(client_logits: Tensor, labels: Tensor, shares: Tensor) -> Tensor:
    """Weighted cross-entropy of the clients with the sampled labels (Zhang et al. 2022, L_cls).

    Args:
        client_logits: logits of the clients (K, N, C).
        labels: sampled class of each sample (N,).
        shares: weight of each client for each sample (K, N).

    Returns:
        (N,).

    Example:
        >>> import torch
        >>> client_cross_entropy(torch.eye(3)[None, :1], torch.tensor([0]), torch.ones(1, 1))
        tensor([0.5514])
    """
    log_probs = to_float32(client_logits).log_softmax(-1)
    index = labels.expand(log_probs.shape[:2]).unsqueeze(-1)
    return -(shares * log_probs.gather(-1, index).squeeze(-1)).sum(0)


def diversity_loss(images: Tensor, noise: Tensor) -> Tensor:
    """Similarity of images whose noise differs (Zhang et al. 2022, L_dis).

    ``exp(-mean_ij(d(x_i, x_j) * d(z_i, z_j)))`` over all pairs, with the mean absolute difference
    of images and the mean squared difference of noise. The paper has L2 norms, which grow with the
    number of pixels; the exponential would be 0 for all but the smallest images.

    Args:
        images: generated images (N, ...).
        noise: their noise (N, Z).

    Returns:
        Scalar in (0, 1].

    Example:
        >>> import torch
        >>> diversity_loss(torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [2.0]]))
        tensor(0.1353)
    """
    flat = to_float32(images).flatten(1)
    image_distance = torch.cdist(flat, flat, p=1.0) / flat.shape[1]
    codes = to_float32(noise)
    noise_distance = (codes[:, None] - codes[None]).square().mean(-1)
    return (-(image_distance * noise_distance).mean()).exp()
