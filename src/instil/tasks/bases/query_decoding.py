"""Decoders of detection transformers of the library transformers, for queries of one's own."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from instil.items import Outputs
from instil.roles.query_decoder import Memory, QueryDecoder

ROLES = ("query_decoder", "query_memory", "query_points")
"""The decoder, the encoded images that it reads, and the model's own points."""

SMALLEST_ANCHOR = 0.05
"""Size of the anchors of RT-DETR on the level with the highest resolution; it doubles by level."""


@contextlib.contextmanager
def recorded_decoder(model: Any, roles: Collection[str] | None) -> Iterator[Outputs]:
    """Record what the decoder of a detection transformer reads while the model runs.

    Args:
        model: ``DetrForObjectDetection``, ``DabDetrForObjectDetection`` or
            ``RTDetrForObjectDetection``.
        roles: roles that are read; None: all.

    Yields:
        Outputs by role, which are filled in when the context ends. They stay empty for another
        model, and if no role is read.
    """
    outputs: Outputs = {}
    kind = DECODERS.get(getattr(getattr(model, "config", None), "model_type", ""))
    is_read = roles is None or bool(set(roles) & set(ROLES))
    if kind is None or not is_read or not kind.supports(model.config):
        yield outputs
        return
    inputs: dict[str, Any] = {}

    def keep(_module: Any, _args: Any, kwargs: Mapping[str, Any]) -> None:
        # The decoder of a later call for other points has no hook: the first call decides.
        inputs.update(kwargs)

    hook = model.model.decoder.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        yield outputs
    finally:
        hook.remove()
    decoder = kind(model, inputs)
    outputs["query_decoder"] = QueryDecoder(
        decoder.num_values, decoder.is_binary, decoder, decoder.num_patterns
    )
    outputs["query_memory"] = decoder.memory()
    outputs["query_points"] = decoder.points()


class _Decoder:
    """Decoder of one family, with the inputs of a forward pass that do not depend on the image."""

    is_binary = True
    position_key = "spatial_position_embeddings"

    def __init__(self, model: Any, inputs: Mapping[str, Any]):
        self.model = model
        self.inputs = inputs
        self.num_patterns = getattr(model.config, "num_patterns", 0) or 1
        self.num_values = self.points().shape[-1]

    @classmethod
    def supports(cls, config: Any) -> bool:
        """Whether points of a decoder with this configuration can be replaced."""
        return True

    def memory(self) -> Memory:
        """Encoded images (N, L, D), and the positions of their cells."""
        return self.inputs["encoder_hidden_states"], self.inputs[self.position_key]

    def points(self) -> Tensor:
        """Points (N, Q, P) of the model."""
        raise NotImplementedError

    def __call__(self, memory: Memory, points: Tensor) -> tuple[Tensor, Tensor]:
        """Predictions of all layers; memory and points get the type of the parameters."""
        dtype = next(self.model.model.decoder.parameters()).dtype
        return self.predict(tuple(part.to(dtype) for part in memory), points.to(dtype))

    def predict(self, memory: Memory, points: Tensor) -> tuple[Tensor, Tensor]:
        """Class logits (layers, N, R, C) and boxes (layers, N, R, 4), Q for each pattern."""
        raise NotImplementedError

    def empty_queries(self, memory: Memory, points: Tensor) -> Tensor:
        """Zeros (N, Q, D), the contents of queries before the first layer."""
        return memory[0].new_zeros(*points.shape[:2], memory[0].shape[-1])


class _Detr(_Decoder):
    """Points are the learned position embeddings of the queries."""

    is_binary = False

    def points(self) -> Tensor:
        points: Tensor = self.inputs["object_queries_position_embeddings"]
        return points

    def predict(self, memory: Memory, points: Tensor) -> tuple[Tensor, Tensor]:
        result = self.model.model.decoder(
            inputs_embeds=self.empty_queries(memory, points),
            encoder_hidden_states=memory[0],
            spatial_position_embeddings=memory[1],
            object_queries_position_embeddings=points,
        )
        # Without auxiliary losses the decoder returns its last layer only.
        states = result.intermediate_hidden_states
        states = result.last_hidden_state[None] if states is None else states
        boxes = self.model.bbox_predictor(states).sigmoid()
        return self.model.class_labels_classifier(states), boxes


class _DabDetr(_Decoder):
    """Points are the logits of reference boxes; patterns are learned contents of each."""

    position_key = "object_queries"

    def points(self) -> Tensor:
        # Patterns repeat the points of all queries, one pattern after the other.
        points: Tensor = self.inputs["query_position_embeddings"]
        return points[:, : self.model.config.num_queries]

    def predict(self, memory: Memory, points: Tensor) -> tuple[Tensor, Tensor]:
        result = self.model.model.decoder(
            inputs_embeds=self._contents(memory, points),
            encoder_hidden_states=memory[0],
            object_queries=memory[1],
            query_position_embeddings=points.repeat(1, self.num_patterns, 1),
            memory_key_padding_mask=None,
            return_dict=True,
        )
        states = result.intermediate_hidden_states
        boxes = self.model.bbox_predictor(states) + result.reference_points.logit(1e-5)
        return self.model.class_embed(states), boxes.sigmoid()

    def _contents(self, memory: Memory, points: Tensor) -> Tensor:
        """Contents of the queries (N, patterns * Q, D): learned patterns, or zeros."""
        if not self.model.config.num_patterns:
            return self.empty_queries(memory, points)
        patterns: Tensor = self.model.model.patterns.weight
        return patterns.repeat_interleave(points.shape[1], 0).expand(len(points), -1, -1)


class _RTDetr(_Decoder):
    """Points are the logits of reference boxes; contents are features of the encoder."""

    @classmethod
    def supports(cls, config: Any) -> bool:
        # Learned contents belong to the number of a query, which other points do not have.
        return not config.learn_initial_query

    def memory(self) -> Memory:
        return (self.inputs["encoder_hidden_states"],)

    def points(self) -> Tensor:
        # Queries of the denoising loss are in front, in train mode.
        points: Tensor = self.inputs["reference_points"]
        return points[:, -self.model.config.num_queries :]

    def predict(self, memory: Memory, points: Tensor) -> tuple[Tensor, Tensor]:
        names = ("spatial_shapes", "spatial_shapes_list", "level_start_index")
        result = self.model.model.decoder(
            inputs_embeds=self._contents(memory[0], points),
            encoder_hidden_states=memory[0],
            reference_points=points,
            **{name: self.inputs[name] for name in names},
        )
        logits, boxes = result.intermediate_logits, result.intermediate_reference_points
        return logits.movedim(1, 0), boxes.movedim(1, 0)

    def _contents(self, memory: Tensor, points: Tensor) -> Tensor:
        """Encoder features (N, Q, D) of the cell in which each box has its centre."""
        model, shapes = self.model.model, self.inputs["spatial_shapes_list"]
        _, is_valid = model.generate_anchors(
            tuple(shapes), device=memory.device, dtype=memory.dtype
        )
        features = model.enc_output(is_valid.to(memory.dtype) * memory)
        cell = cells_of(points.sigmoid(), shapes)[..., None].expand(-1, -1, memory.shape[-1])
        contents: Tensor = features.gather(1, cell)
        return contents.detach()


def cells_of(boxes: Tensor, shapes: Any) -> Tensor:
    """Cell of the encoder's features in which each box has its centre.

    The level is the one whose anchors have the size that is closest to that of the box.

    Args:
        boxes: (N, Q, 4), centre and size as fractions of the image.
        shapes: height and width of each level.

    Returns:
        Indices (N, Q) into the cells of all levels, which follow one another.

    Example:
        >>> boxes = torch.tensor([[[0.9, 0.1, 0.05, 0.05], [0.1, 0.9, 1.0, 1.0]]])
        >>> cells_of(boxes, [(4, 4), (2, 2)])
        tensor([[ 3, 18]])
    """
    sizes = torch.as_tensor(shapes, device=boxes.device)
    areas = sizes.prod(1)
    side = boxes[..., 2:].prod(-1).sqrt().clamp_min(1e-6)
    level = (side / SMALLEST_ANCHOR).log2().round().long().clamp(0, len(sizes) - 1)
    height, width = sizes[level].unbind(-1)
    column = (boxes[..., 0] * width).long().clamp_min(0).minimum(width - 1)
    row = (boxes[..., 1] * height).long().clamp_min(0).minimum(height - 1)
    return (areas.cumsum(0) - areas)[level] + row * width + column


DECODERS: dict[str, type[_Decoder]] = {"detr": _Detr, "dab-detr": _DabDetr, "rt_detr": _RTDetr}
"""Model type in the configuration -> decoder."""
