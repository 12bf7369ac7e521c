"""A small transformer encoder (Vaswani et al. 2017; Devlin et al. 2019) for short texts."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from instil.cards import NonNegativeInt, PositiveInt
from instil.networks.attention_heads import check_heads

KeyValueCache = list[Tensor]
"""Keys and values (N, H, S, D) of one attention for the S earlier tokens; empty at first."""


class Attention(nn.Module):
    """Self-attention with the linear layers ``query``, ``key`` and ``value``.

    Args:
        width: width of the tokens.
        heads: number of attention heads.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.projection = nn.Linear(width, width)

    def forward(
        self, tokens: Tensor, mask_bias: Tensor, cache: KeyValueCache | None = None
    ) -> tuple[Tensor, Tensor]:
        """Compute the outputs (N, L, D) and the attention probabilities (N, H, L, S + L).

        Args:
            tokens: (N, L, D).
            mask_bias: addend of the scores, broadcast to (N, H, L, S + L); very negative for
                tokens that are not visible.
            cache: keys and values of the S earlier tokens; those of ``tokens`` are added.
        """
        query = self._split_heads(self.query(tokens))
        key = self._split_heads(self.key(tokens))
        value = self._split_heads(self.value(tokens))
        if cache is not None:
            if cache:
                key = torch.cat([cache[0], key], 2)
                value = torch.cat([cache[1], value], 2)
            cache[:] = [key, value]
        scores = query @ key.transpose(2, 3) / query.shape[-1] ** 0.5
        probability = (scores + mask_bias).softmax(-1)
        mixed: Tensor = self.projection((probability @ value).transpose(1, 2).flatten(2))
        return mixed, probability

    def _split_heads(self, values: Tensor) -> Tensor:
        heads: Tensor = values.unflatten(2, (self.heads, -1))  # type: ignore[no-untyped-call]
        return heads.transpose(1, 2)


class TransformerBlock(nn.Module):
    """Attention and a two-layer perceptron, each after a layer norm and with a shortcut.

    Args:
        width: width of the tokens.
        heads: number of attention heads.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(
        self, tokens: Tensor, mask_bias: Tensor, cache: KeyValueCache | None = None
    ) -> tuple[Tensor, Tensor]:
        """Compute the outputs and the attention probabilities; arguments as in ``Attention``."""
        mixed, probability = self.attention(self.norm1(tokens), mask_bias, cache)
        tokens = tokens + mixed
        return tokens + self.mlp(self.norm2(tokens)), probability


class TextTransformer(nn.Module):
    """Embeddings with learned positions, ``stages`` of one block each, and a head.

    The head reads the first token. The model is called like those of transformers.

    Args:
        classes: number of classes.
        vocabulary: number of tokens.
        length: largest number of tokens per row.
        width: width of the hidden states.
        depth: number of blocks.
        heads: number of attention heads.
    """

    def __init__(
        self, classes: int, vocabulary: int, length: int, width: int, depth: int, heads: int
    ):
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.position = nn.Parameter(torch.randn(1, length, width) * 0.02)
        self.stages = nn.ModuleList(TransformerBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None
    ) -> dict[str, Tensor | tuple[Tensor, ...]]:
        """Compute ``logits`` (N, classes), ``hidden_states`` and ``attentions``.

        Args:
            input_ids: (N, L).
            attention_mask: (N, L), 0 for padding.

        Raises:
            ValueError: if the text is longer than ``length``.
        """
        length = self.position.shape[1]
        if input_ids.shape[1] > length:
            raise ValueError(
                f"a text of {input_ids.shape[1]} tokens is longer than the {length} that this net "
                "was built for"
            )
        state = self.tokens(input_ids) + self.position[:, : input_ids.shape[1]]
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        mask_bias = (1 - mask[:, None, None].to(state.dtype)) * torch.finfo(state.dtype).min
        states = [state]
        attentions = []
        for stage in self.stages:
            state, probability = stage(state, mask_bias)
            states.append(state)
            attentions.append(probability)
        return {
            "logits": self.head(self.norm(state[:, 0])),
            "hidden_states": tuple(states),
            "attentions": tuple(attentions),
        }


def text_transformer(
    classes: PositiveInt,
    vocabulary: PositiveInt,
    length: PositiveInt = 64,
    width: PositiveInt = 32,
    depth: NonNegativeInt = 2,
    heads: PositiveInt = 2,
) -> nn.Module:
    """Build a text transformer: 29,962 parameters for 10 classes and 66 tokens at the defaults.

    Args:
        classes: number of classes.
        vocabulary: number of tokens.
        length: largest number of tokens per row.
        width: width of the hidden states, a multiple of ``heads``.
        depth: number of blocks.
        heads: number of attention heads.

    Raises:
        ValueError: if ``width`` is not a multiple of ``heads``.
    """
    check_heads(width, heads)
    return TextTransformer(classes, vocabulary, length, width, depth, heads)
