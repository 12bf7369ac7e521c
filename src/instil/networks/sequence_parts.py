"""Encoder and decoder of a small sequence-to-sequence transformer (Vaswani et al. 2017)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from instil.networks.text_transformer import Attention, TransformerBlock


class CrossAttention(Attention):
    """Attention from the tokens of the decoder to the states of the encoder."""

    def forward(  # type: ignore[override]
        self, tokens: Tensor, memory: Tensor, mask_bias: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Compute the outputs (N, L, D) and the attention probabilities (N, H, L, S).

        Args:
            tokens: (N, L, D).
            memory: states of the encoder (N, S, D).
            mask_bias: addend of the scores, broadcast to (N, H, L, S).
        """
        query = self._split_heads(self.query(tokens))
        key = self._split_heads(self.key(memory))
        value = self._split_heads(self.value(memory))
        scores = query @ key.transpose(2, 3) / query.shape[-1] ** 0.5
        probability = (scores + mask_bias).softmax(-1)
        mixed: Tensor = self.projection((probability @ value).transpose(1, 2).flatten(2))
        return mixed, probability


class DecoderBlock(TransformerBlock):
    """Self-attention, attention to the encoder and a perceptron, each after a layer norm.

    Args:
        width: width of the tokens.
        heads: number of attention heads.
    """

    def __init__(self, width: int, heads: int):
        super().__init__(width, heads)
        self.norm3 = nn.LayerNorm(width)
        self.cross_attention = CrossAttention(width, heads)

    def forward(  # type: ignore[override]
        self, tokens: Tensor, mask_bias: Tensor, memory: Tensor, memory_bias: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the outputs, the self-attention and the attention to the encoder."""
        mixed, probability = self.attention(self.norm1(tokens), mask_bias)
        tokens = tokens + mixed
        mixed, cross_probability = self.cross_attention(self.norm3(tokens), memory, memory_bias)
        tokens = tokens + mixed
        return tokens + self.mlp(self.norm2(tokens)), probability, cross_probability


class SequenceEncoder(nn.Module):
    """Input layer, sinusoidal positions, ``stages`` of one block each, and a layer norm.

    Args:
        inputs: key of the input: ``input_ids`` (N, S), ``input_features`` (N, channels, T), whose
            length is halved as in Whisper, or ``pixel_values`` (N, channels, H, W).
        size: number of tokens, or of channels.
        width: width of the hidden states.
        depth: number of blocks.
        heads: number of attention heads.
        patch: side of an image patch in pixels.
    """

    def __init__(self, inputs: str, size: int, width: int, depth: int, heads: int, patch: int):
        super().__init__()
        self.inputs = inputs
        self.input_layer = _input_layer(inputs, size, width, patch)
        self.stages = nn.ModuleList(TransformerBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        input_features: Tensor | None = None,
        pixel_values: Tensor | None = None,
    ) -> dict[str, Any]:
        """Compute the hidden states of one input.

        Args:
            input_ids: (N, S).
            attention_mask: (N, S) or (N, T), 0 for padding.
            input_features: (N, channels, T).
            pixel_values: (N, channels, H, W).

        Returns:
            ``last_hidden_state``, ``hidden_states``, ``attentions``, and ``attention_mask`` of the
            states if there is a mask.

        Raises:
            ValueError: for another input than that of the constructor.
        """
        values = {
            "input_ids": input_ids,
            "input_features": input_features,
            "pixel_values": pixel_values,
        }
        value = values[self.inputs]
        if value is None:
            present = [key for key, other in values.items() if other is not None]
            raise ValueError(
                f"encoder_decoder: missing input. Expected {self.inputs}, got "
                f"{', '.join(present) or 'none'}. Set options.inputs to the key of the data"
            )
        state = self.input_layer(value)
        if self.inputs == "input_ids":
            state = state * math.sqrt(state.shape[-1])
        else:
            state = state.flatten(2).transpose(1, 2)
        if self.inputs == "input_features" and attention_mask is not None:
            attention_mask = attention_mask[:, ::2]
        state = state + _positions(state)
        mask_bias = _mask_bias(state, attention_mask)
        states = [state]
        attentions = []
        for stage in self.stages:
            state, probability = stage(state, mask_bias)
            states.append(state)
            attentions.append(probability)
        states[-1] = self.norm(state)
        outputs = {
            "last_hidden_state": states[-1],
            "hidden_states": tuple(states),
            "attentions": tuple(attentions),
        }
        return outputs if attention_mask is None else outputs | {"attention_mask": attention_mask}


class SequenceDecoder(nn.Module):
    """Embeddings, sinusoidal positions, ``stages`` of one causal block each, and a layer norm.

    Args:
        vocabulary: number of tokens.
        width: width of the hidden states.
        depth: number of blocks.
        heads: number of attention heads.
    """

    def __init__(self, vocabulary: int, width: int, depth: int, heads: int):
        super().__init__()
        self.tokens = _embedding(vocabulary, width)
        self.stages = nn.ModuleList(DecoderBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(
        self,
        input_ids: Tensor,
        encoder_hidden_states: Tensor,
        encoder_attention_mask: Tensor | None = None,
    ) -> dict[str, Any]:
        """Compute the hidden states of the tokens.

        Args:
            input_ids: (N, L), the start token first.
            encoder_hidden_states: (N, S, D).
            encoder_attention_mask: (N, S), 0 for padding.

        Returns:
            ``last_hidden_state``, ``hidden_states``, ``attentions`` and ``cross_attentions``.
        """
        state = self.tokens(input_ids)
        state = state * math.sqrt(state.shape[-1]) + _positions(state)
        length = input_ids.shape[1]
        visible = torch.ones(length, length, dtype=torch.bool, device=state.device).tril()
        mask_bias = torch.zeros_like(visible, dtype=state.dtype)
        mask_bias = mask_bias.masked_fill(~visible, torch.finfo(state.dtype).min)[None, None]
        memory_bias = _mask_bias(state, encoder_attention_mask)
        states = [state]
        attentions = []
        cross_attentions = []
        for stage in self.stages:
            state, probability, cross_probability = stage(
                state, mask_bias, encoder_hidden_states, memory_bias
            )
            states.append(state)
            attentions.append(probability)
            cross_attentions.append(cross_probability)
        states[-1] = self.norm(state)
        return {
            "last_hidden_state": states[-1],
            "hidden_states": tuple(states),
            "attentions": tuple(attentions),
            "cross_attentions": tuple(cross_attentions),
        }


def _input_layer(inputs: str, size: int, width: int, patch: int) -> nn.Module:
    if inputs == "input_ids":
        return _embedding(size, width)
    if inputs == "input_features":
        return nn.Sequential(
            nn.Conv1d(size, width, 3, padding=1),
            nn.GELU(),
            nn.Conv1d(width, width, 3, stride=2, padding=1),
            nn.GELU(),
        )
    if inputs == "pixel_values":
        return nn.Conv2d(size, width, patch, patch)
    raise ValueError(
        f"encoder_decoder: unknown inputs '{inputs}'. Expected input_ids, input_features or "
        "pixel_values"
    )


def _embedding(size: int, width: int) -> nn.Embedding:
    """Embedding whose values have the variance 1 / width, as the head and the scale expect."""
    embedding = nn.Embedding(size, width)
    nn.init.normal_(embedding.weight, std=width**-0.5)
    return embedding


def _positions(state: Tensor) -> Tensor:
    """Sinusoidal positions (1, L, D) of a state (N, L, D)."""
    length = state.shape[1]
    half = state.shape[2] // 2
    frequency = torch.arange(half, device=state.device, dtype=torch.float32) / half
    frequency = torch.exp(-math.log(10000.0) * frequency)
    position = torch.arange(length, device=state.device, dtype=torch.float32)
    angle = position[:, None] * frequency[None]
    return torch.cat([angle.sin(), angle.cos()], 1)[None].to(state.dtype)


def _mask_bias(state: Tensor, mask: Tensor | None) -> Tensor:
    """Addend of the attention scores: 0 for visible positions, very negative for padding."""
    if mask is None:
        return state.new_zeros(1, 1, 1, 1)
    return (1 - mask[:, None, None].to(state.dtype)) * torch.finfo(state.dtype).min
