"""A small transformer encoder (Vaswani et al. 2017; Devlin et al. 2019) for short texts."""

from __future__ import annotations

import torch
from torch import Tensor, nn

KeyValueCache = list[Tensor]
"""Keys and values of the tokens that one attention has read before, empty at first; it adds those that it reads."""


class Attention(nn.Module):
    """Self-attention among tokens (N, L, D) by ``query``, ``key`` and ``value``; gives the mixed tokens and the probabilities (N, H, L, L)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.projection = nn.Linear(width, width)

    def forward(
        self, tokens: Tensor, hidden: Tensor, read: KeyValueCache | None = None
    ) -> tuple[Tensor, Tensor]:
        """``hidden`` (N, 1, 1, L) is what is added to the scores: very negative for padding. The tokens see those in ``read`` too."""
        query, key, value = (
            part(tokens).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        if read is not None:
            read[:] = (
                [torch.cat(parts, 2) for parts in zip(read, (key, value), strict=True)]
                if read
                else [key, value]
            )
            key, value = read
        scores = query @ key.transpose(2, 3) / query.shape[-1] ** 0.5
        probability = (scores + hidden).softmax(-1)
        mixed: Tensor = self.projection((probability @ value).transpose(1, 2).flatten(2))
        return mixed, probability


class TransformerBlock(nn.Module):
    """Attention and a two-layer perceptron, each after a layer norm and beside a shortcut."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(
        self, tokens: Tensor, hidden: Tensor, read: KeyValueCache | None = None
    ) -> tuple[Tensor, Tensor]:
        mixed, probability = self.attention(self.norm1(tokens), hidden, read)
        tokens = tokens + mixed
        return tokens + self.mlp(self.norm2(tokens)), probability


class TextTransformer(nn.Module):
    """Tokens with learned positions through ``stages`` of one block each; the first token goes to the head. Answers as transformers' models do."""

    def __init__(
        self, classes: int, vocabulary: int, length: int, width: int, depth: int, heads: int
    ):
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.position = nn.Parameter(torch.randn(1, length, width) * 0.02)
        self.stages = nn.ModuleList(TransformerBlock(width, heads) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None
    ) -> dict[str, Tensor | tuple[Tensor, ...]]:
        length = self.position.shape[1]
        if input_ids.shape[1] > length:
            raise ValueError(
                f"a text of {input_ids.shape[1]} tokens is longer than the {length} that this net was built for"
            )
        state = self.tokens(input_ids) + self.position[:, : input_ids.shape[1]]
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        hidden = (1 - mask[:, None, None].to(state.dtype)) * torch.finfo(state.dtype).min
        states, attentions = [state], []
        for stage in self.stages:
            state, probability = stage(state, hidden)
            states.append(state)
            attentions.append(probability)
        return {
            "logits": self.head(self.norm(state[:, 0])),
            "hidden_states": tuple(states),
            "attentions": tuple(attentions),
        }


def text_transformer(
    classes: int, vocabulary: int, length: int = 64, width: int = 32, depth: int = 2, heads: int = 2
) -> nn.Module:
    """29,962 parameters for 10 classes and 66 tokens of 64 at most, at the defaults; ``input_ids`` and ``attention_mask`` (N, L)."""
    if width % heads:
        raise ValueError(f"width {width} is not a multiple of heads {heads}")
    return TextTransformer(classes, vocabulary, length, width, depth, heads)
