"""Mixtures of each sample with a partner, and their outputs."""

from __future__ import annotations

import numpy as np
import torch

from instil.core import Batch, Outputs, first_tensor


def split_thirds(outputs: Outputs) -> list[Outputs]:
    """Split the outputs for samples, partners and mixtures into one set of outputs each."""
    chunks = {role: value.chunk(3) for role, value in outputs.items()}
    return [{role: parts[index] for role, parts in chunks.items()} for index in range(3)]


def first_key(batch: Batch) -> str:
    """Return the key of the first tensor of a batch, which the network reads."""
    value = first_tensor(batch)
    return next(key for key, other in batch.items() if other is value)


def mix_with_partner(batch: Batch, alpha: float) -> Batch:
    """Mix each sample with its partner, with one random share for the whole step.

    Args:
        batch: samples, with ``partner_`` and the name of the first tensor, and ``partner_label``.
        alpha: parameter of the symmetric Beta distribution of the share.

    Returns:
        The batch with ``mixture`` and ``share``, the share of the sample in its mixture.

    Raises:
        ValueError: if the batch has no partners.
    """
    key = first_key(batch)
    partner_keys = f"partner_{key}", "partner_label"
    missing = [name for name in partner_keys if name not in batch]
    if missing:
        raise ValueError(
            f"scheme: each sample is mixed with another one. Expected '{missing[0]}' in the batch, "
            f"got {', '.join(batch)}. Set data.augment.partner: true, or let the loader add it"
        )
    seed = int(batch.get("seed", 0))
    step = int(batch.get("step", 0))
    # Keyed by seed and step: every micro-batch and rank draws the same share.
    share = float(np.random.default_rng((seed, step)).beta(alpha, alpha))
    mixture = torch.lerp(batch[f"partner_{key}"], batch[key], share)
    return batch | {"mixture": mixture, "share": torch.tensor(share)}
