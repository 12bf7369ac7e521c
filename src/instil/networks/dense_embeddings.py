"""Embeddings of the positions of an image, from the image tower of an image-text model."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


def has_dense_embedding(model: nn.Module) -> bool:
    """Whether ``dense_embedding`` supports the architecture of a model."""
    return _is_own(model) or _is_transformers(model) or _is_open_clip(model)


def _is_own(model: Any) -> bool:
    tower = getattr(model, "image", None)
    return hasattr(tower, "stages") and hasattr(tower, "head")


def _is_transformers(model: Any) -> bool:
    return hasattr(model, "vision_model") and hasattr(model, "visual_projection")


def _is_open_clip(model: Any) -> bool:
    visual = getattr(getattr(model, "model", None), "visual", None)
    return hasattr(visual, "class_embedding") and getattr(visual, "attn_pool", None) is None


def dense_embedding(model: Any, image: Tensor) -> Tensor:
    """Compute the embedding of each position, before it is scaled to length 1.

    The last layers, which map pooled features to the embedding, are applied to every position. For
    a ``cnn``, the mean over the positions is the embedding of the image.

    Args:
        model: ``two_towers`` with a ``cnn`` or ``vit``, or CLIP of open_clip or transformers.
        image: (N, C, H, W), resized and normalised for the model.

    Returns:
        (N, D, h, w).

    Raises:
        ValueError: for a model of another architecture.

    Example:
        >>> import torch
        >>> from instil.networks.two_towers import two_towers
        >>> dense_embedding(two_towers(9), torch.zeros(2, 3, 16, 16)).shape
        torch.Size([2, 32, 4, 4])
    """
    if _is_own(model):
        tower = model.image
        return _of_vit(tower, image) if hasattr(tower, "patches") else _of_cnn(tower, image)
    if _is_transformers(model):
        part = model.vision_model
        tokens = part(pixel_values=image).last_hidden_state[:, 1:]
        return _as_map(
            model.visual_projection(part.post_layernorm(tokens)),
            image.shape[2] // part.embeddings.patch_size,
        )
    if _is_open_clip(model):
        return _of_open_clip(model.model.visual, image)
    raise ValueError(f"{type(model).__name__} has no embedding of each position")


def _of_cnn(tower: Any, image: Tensor) -> Tensor:
    for stage in tower.stages:
        image = stage(image)
    embedding: Tensor = tower.head(image.movedim(1, -1)).movedim(-1, 1)
    return embedding


def _of_vit(tower: Any, image: Tensor) -> Tensor:
    last: list[Tensor] = []

    def record(_module: nn.Module, _args: Any, output: Tensor) -> None:
        last.append(output)

    handle = tower.stages[-1].register_forward_hook(record)
    try:
        tower(image)
    finally:
        handle.remove()
    return _as_map(tower.head(tower.norm(last[-1][:, 1:])), image.shape[2] // _side(tower.patches))


def _of_open_clip(visual: Any, image: Tensor) -> Tensor:
    tokens = visual.ln_post(visual.transformer(visual._embeds(image)))[:, 1:]
    if visual.proj is not None:
        tokens = tokens @ visual.proj
    return _as_map(tokens, visual.grid_size[0])


def _side(convolution: Any) -> int:
    side: int = convolution.kernel_size[0]
    return side


def _as_map(tokens: Tensor, height: int) -> Tensor:
    """Tokens (N, h * w, D) as a map (N, D, h, w)."""
    return tokens.mT.unflatten(2, (height, -1))  # type: ignore[no-untyped-call, no-any-return]
