"""Data set of token rows, whose label is the next token at each position."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from instil.core import UNLABELLED
from instil.data.samples import TensorData
from instil.data.token_vocabulary import TokenSamples
from instil.data.tokenizers import Tokenizer


class Row(NamedTuple):
    """Tokens of one row; some are input only.

    Attributes:
        tokens: token ids.
        num_bytes: number of UTF-8 bytes of each token.
        read: number of tokens at the beginning that are input only, such as a prompt.
        context: token ids of a context, which are not in ``tokens``.
        domain: index of the domain.
        unlearned: positions of further tokens that are input only, such as the first of a text.
    """

    tokens: list[int]
    num_bytes: list[int]
    read: int
    context: Sequence[int] = ()
    domain: int = 0
    unlearned: Sequence[int] = ()


class TokenRows(TokenSamples, TensorData):
    """Rows (N, T) of ``input_ids`` with the next token as ``label``, -100 for no target.

    Further keys of a batch: ``attention_mask`` (0 for padding), ``valid`` (True at targets), and
    ``bytes`` (UTF-8 bytes of the target), all (N, T). Rows with a context have ``context_ids`` and
    ``context_mask`` (N, C), and ``num_bos`` (N,), the number of tokens that stay in front of the
    context. Rows of several domains have ``domain`` (N,).

    Args:
        rows: tokens of each row, at most ``length`` + 1; the last is a target only.
        length: length T of a row.
        vocabulary: number of tokens.
        tokenizer: tokenizer of the rows.
        tokens: token ids of the tokenizer by the ids of a reduced vocabulary; empty for the whole
            vocabulary.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        length: int,
        vocabulary: int,
        tokenizer: Tokenizer,
        tokens: Sequence[int] = (),
    ):
        self.set_vocabulary(vocabulary, length, tokenizer, tokens)
        self.has_prompts = any(row.read > 1 for row in rows)
        ids = torch.full((len(rows), length + 1), self.end)
        num_bytes = torch.zeros_like(ids)
        is_token = torch.zeros_like(ids, dtype=torch.bool)
        is_target = torch.zeros_like(is_token)
        for index, row in enumerate(rows):
            row_length = len(row.tokens)
            ids[index, :row_length] = torch.tensor(row.tokens)
            num_bytes[index, :row_length] = torch.tensor(row.num_bytes)
            is_token[index, :row_length] = True
            is_target[index, row.read : row_length] = True
            is_target[index, list(row.unlearned)] = False
        valid = is_target[:, 1:] & is_token[:, :-1]
        tensors = {
            "input_ids": ids[:, :-1],
            "attention_mask": is_token[:, :-1].long(),
            "valid": valid,
            "bytes": num_bytes[:, 1:],
            **self._context_tensors(rows),
        }
        label = ids[:, 1:].masked_fill(~valid, UNLABELLED)
        super().__init__(
            {key: value.contiguous() for key, value in tensors.items()}, label, ("token",)
        )

    def _context_tensors(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """Contexts and domains, if there are any; sets ``context``, the largest context length."""
        self.context = max((len(row.context) for row in rows), default=0)
        tensors: dict[str, Tensor] = {}
        if self.context:
            lengths = torch.tensor([len(row.context) for row in rows])
            is_token = torch.arange(self.context)[None] < lengths[:, None]
            ids = torch.tensor(
                [[*row.context, *[self.end] * (self.context - len(row.context))] for row in rows]
            )
            tensors = {"context_ids": ids, "context_mask": is_token.long()}
            if any(row.unlearned for row in rows):
                tensors["num_bos"] = torch.tensor([len(row.unlearned) for row in rows])
        if any(row.domain for row in rows):
            tensors["domain"] = torch.tensor([row.domain for row in rows])
        return tensors

    def _checked(self, label: Tensor) -> Tensor:
        if label.ndim != 2 or label.is_floating_point() or label.max() >= self.vocabulary:
            raise ValueError(
                f"labels of texts are token numbers (N, T) below {self.vocabulary}, not "
                f"{label.dtype} {tuple(label.shape)}"
            )
        return label.to(torch.int64)
