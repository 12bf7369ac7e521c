"""Call of models that segment prompted objects, such as SAM of transformers."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from instil.core import Batch, Outputs
from instil.functional.masks import resize_masks
from instil.tasks.classification import preprocess

MASK_ROLES = frozenset({"mask_logits", "iou_scores"})
"""Roles that need the mask decoder."""
PARTS = ("vision_encoder", "prompt_encoder", "mask_decoder")
"""Parts of a model that segments prompted objects."""
Prompt = Mapping[str, Tensor]
"""``box`` (N, 4), and ``points`` (N, L, 2) with ``point_labels`` (N, L): one of both, or both. Also
``mask`` (N, h, w), logits of an earlier mask, in any resolution."""
MASK_STRIDE = 4
"""Pixels of a mask prompt per cell of the image embedding, along each axis."""


def prompted_call(
    model: nn.Module,
    batch: Batch,
    size: int | tuple[int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    roles: Collection[str] | None = None,
) -> Outputs:
    """Compute the embedding of an image, and masks for its prompts.

    Args:
        model: a model with ``vision_encoder``, ``prompt_encoder`` and ``mask_decoder``, such as
            ``SamModel`` of transformers.
        batch: ``image`` (N, C, H, W) in [0, 1], or its ``dense_embedding``; and ``prompts``, a
            tuple of ``Prompt``. Without ``prompts``, the box and the points of the batch are one
            prompt each. Coordinates are pixels of ``image``, from 0.
        size: side, or height and width, of the model's images; None for those of its encoder.
        mean: mean of each channel.
        std: standard deviation of each channel.
        roles: roles that are read; None for all.

    Returns:
        ``dense_embedding`` (N, D, h, w) of the image; M candidates ``mask_logits``
        (N, P, M, h', w') for each of P prompts, and their predicted intersection over union
        ``iou_scores`` (N, P, M).
    """
    network: Any = model
    embedding: Tensor | None = batch.get("dense_embedding")
    if embedding is None:
        side = size or getattr(network.vision_encoder, "image_size", None)
        pixels = preprocess(batch["image"], side, mean, std)
        embedding = network.vision_encoder(pixels).last_hidden_state
    outputs: Outputs = {"dense_embedding": embedding}
    if roles is None or not MASK_ROLES.isdisjoint(roles):
        shape = batch["image"].shape[-2:]
        results = [_decode(network, embedding, prompt, shape) for prompt in prompts_of(batch)]
        outputs["mask_logits"] = torch.cat([masks for masks, _ in results], 1)
        outputs["iou_scores"] = torch.cat([scores for _, scores in results], 1)
    return outputs


def prompts_of(batch: Batch) -> tuple[Prompt, ...]:
    """Return the prompts of a batch: ``prompts``, or the box and the points as one prompt each.

    Raises:
        ValueError: for a batch without prompts.
    """
    if "prompts" in batch:
        prompts: tuple[Prompt, ...] = batch["prompts"]
        return prompts
    single: list[Prompt] = []
    if "box" in batch:
        single.append({"box": batch["box"]})
    if "points" in batch:
        single.append({key: batch[key] for key in ("points", "point_labels")})
    if not single:
        raise ValueError(
            "promptable segmentation needs a prompt. Expected 'box' (N, 4), or 'points' "
            f"(N, L, 2) with 'point_labels' (N, L), in the batch, got {', '.join(batch)}"
        )
    return tuple(single)


def _decode(
    network: Any, embedding: Tensor, prompt: Prompt, shape: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Masks (N, 1, M, h, w) of a prompt, and their scores (N, 1, M)."""
    scale = network.prompt_encoder.input_image_size
    arguments: dict[str, Tensor] = {}
    if "box" in prompt:
        arguments["input_boxes"] = _scaled(prompt["box"], scale, shape)[:, None]
    if "points" in prompt:
        arguments["input_points"] = _scaled(prompt["points"], scale, shape)[:, None]
        arguments["input_labels"] = prompt["point_labels"][:, None]
    if "mask" in prompt:
        arguments["input_masks"] = _mask_prompt(network, prompt["mask"], embedding)
    result = network(image_embeddings=embedding, multimask_output=True, **arguments)
    return result.pred_masks, result.iou_scores


def _mask_prompt(network: Any, mask: Tensor, embedding: Tensor) -> Tensor:
    """Mask logits (N, 1, H, W) in the resolution that the prompt encoder reads."""
    if "input_masks" not in inspect.signature(network.forward).parameters:
        raise ValueError(
            f"{type(network).__name__} reads no mask as a prompt. Expected a forward with the "
            "parameter input_masks, as that of SamModel of transformers"
        )
    height, width = (MASK_STRIDE * side for side in embedding.shape[-2:])
    return resize_masks(mask[:, None, None], (height, width))[:, 0].to(embedding.dtype)


def _scaled(pixels: Tensor, scale: int, shape: Sequence[int]) -> Tensor:
    """Coordinates (..., x, y) in the image of the prompt encoder, without its shift of 0.5."""
    height, width = shape
    size = torch.tensor([width, height], dtype=torch.float32, device=pixels.device)
    pairs = pixels.to(torch.float32).reshape(*pixels.shape[:-1], -1, 2)
    scaled: Tensor = (pairs + 0.5) * (scale / size) - 0.5
    return scaled.flatten(-2)
