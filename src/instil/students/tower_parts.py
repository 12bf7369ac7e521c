"""Image and text towers of two-tower models, by the axes that a narrower tower shortens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import nn

from instil.students.tower_axes import Axis, Block, axes, block_of, inputs


@dataclass(frozen=True)
class Tower:
    """A transformer tower.

    Args:
        stack: module with the list of layers.
        layers: the layers.
        outer: axes of the residual stream outside the layers.
        num_heads: number of attention heads.
        config: configuration of transformers; None for other libraries.
        sized: modules outside the layers whose width is an attribute.
    """

    stack: nn.Module
    layers: list[nn.Module]
    outer: list[Axis]
    num_heads: int
    config: Any = None
    sized: list[nn.Module] = field(default_factory=list)

    @property
    def width(self) -> int:
        """Number of channels of the residual stream."""
        axis = self.outer[0]
        return axis.tensor.shape[axis.dim]

    @property
    def blocks(self) -> list[Block]:
        """Axes of each layer."""
        return [block_of(layer) for layer in self.layers]


def image_tower(model: Any) -> Tower | None:
    """Return the image tower of a two-tower model, None for an unknown architecture."""
    part: Any
    if hasattr(model, "vision_model") and hasattr(model, "visual_projection"):
        part = model.vision_model
        embeddings = part.embeddings
        outer = [
            Axis(embeddings, "class_embedding"),
            *axes(embeddings.patch_embedding),
            *axes(embeddings.position_embedding, 1),
            *axes(part.pre_layrnorm),
            *axes(part.post_layernorm),
            *inputs([model.visual_projection]),
        ]
        return _of_transformers(part, outer, [embeddings])
    visual: Any = getattr(getattr(model, "model", None), "visual", None)
    if hasattr(visual, "class_embedding") and getattr(visual, "attn_pool", None) is None:
        outer = [
            Axis(visual, "class_embedding"),
            *axes(visual.conv1),
            Axis(visual, "positional_embedding", 1),
            *axes(visual.ln_pre),
            *axes(visual.ln_post),
        ]
        if visual.proj is not None:
            outer.append(Axis(visual, "proj"))
        return _of_open_clip(visual.transformer, outer)
    part = getattr(model, "image", None)
    if hasattr(part, "patches"):
        outer = [*axes(part.patches), Axis(part, "token", 2), Axis(part, "position", 2)]
        outer += [*axes(part.norm), *inputs([part.head])]
        return Tower(part, list(part.stages), outer, part.stages[0].heads)
    return None


def text_tower(model: Any) -> Tower | None:
    """Return the text tower of a two-tower model, None for an unknown architecture."""
    part: Any
    if hasattr(model, "text_model") and hasattr(model, "text_projection"):
        part = model.text_model
        embeddings = part.embeddings
        outer = [
            *axes(embeddings.token_embedding, 1),
            *axes(embeddings.position_embedding, 1),
            *axes(part.final_layer_norm),
            *inputs([model.text_projection]),
        ]
        return _of_transformers(part, outer, [part])
    inner = getattr(model, "model", None)
    # CustomTextCLIP has the text tower in a module of its own.
    part = getattr(inner, "text", inner)
    if hasattr(part, "token_embedding") and hasattr(part, "ln_final"):
        outer = [
            *axes(part.token_embedding, 1),
            Axis(part, "positional_embedding", 1),
            *axes(part.ln_final),
        ]
        if isinstance(part.text_projection, nn.Linear):
            outer += inputs([part.text_projection])
        else:
            outer.append(Axis(part, "text_projection"))
        if getattr(part, "cls_emb", None) is not None:
            outer.append(Axis(part, "cls_emb"))
        return _of_open_clip(part.transformer, outer)
    part = getattr(model, "text", None)
    if hasattr(part, "tokens") and hasattr(part, "stages"):
        outer = [*axes(part.tokens, 1), Axis(part, "position", 2), *axes(part.norm)]
        outer += inputs([part.head])
        return Tower(part, list(part.stages), outer, part.stages[0].attention.heads)
    return None


def _of_transformers(part: Any, outer: list[Axis], sized: list[nn.Module]) -> Tower:
    config = part.config
    layers = list(part.encoder.layers)
    return Tower(part, layers, outer, config.num_attention_heads, config, sized)


def _of_open_clip(transformer: Any, outer: list[Axis]) -> Tower:
    layers = list(transformer.resblocks)
    return Tower(transformer, layers, outer, layers[0].attn.num_heads, sized=[transformer])
