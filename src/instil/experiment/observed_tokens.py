"""Tokens of a batch on which a compression observes a model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from instil.core import Batch
from instil.students.adapted_model import without_wrapper

MASKS = ("attention_mask", "encoder_attention_mask", "partner_attention_mask", "segment")
"""Keys with a mask (N, T) of the tokens of an input: 0 for padding."""


def token_masks(model: nn.Module, batch: Batch) -> list[Tensor]:
    """Return the masks (N, T) of the tokens, or frames, of all inputs of a batch.

    Args:
        model: model that reads the batch.
        batch: a batch of samples.

    Returns:
        Masks that are False for padding; none for inputs without padding, such as images.
    """
    masks = [batch[key] != 0 for key in MASKS if key in batch and batch[key].ndim == 2]
    # The decoder of an encoder-decoder reads the labels, whose padding does not count.
    if "attention_mask" not in batch and "valid" in batch and batch["valid"].ndim == 2:
        masks.append(batch["valid"].bool())
    lengths: Any = getattr(without_wrapper(model), "_get_feat_extract_output_lengths", None)
    if lengths is not None and "audio_length" in batch:
        num_frames = lengths(batch["audio_length"])
        # A batch is cut to its longest recording before the model.
        frames = torch.arange(int(num_frames.max()), device=num_frames.device)
        masks.append(frames < num_frames[:, None])
    return masks
