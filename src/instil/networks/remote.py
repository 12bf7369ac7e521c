"""Causal language model on a server that returns the most likely next tokens of each position."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from instil.cards import NonNegativeInt, Positive, PositiveInt
from instil.core import Outputs
from instil.files.cache import cache_folder
from instil.remote.log import NOTE, question_key
from instil.remote.server import KEY, Server
from instil.roles import LazyOutputs, Top

ANSWER_OPTIONS = ("name", "size")
"""Options that change the outputs; the others set up the connection."""
MIN_TOKENS = 64
"""Smallest number of tokens for the comparison of vocabularies."""
MIN_HIT_RATE = 0.05
"""With a shared vocabulary, at least this share of tokens is among the most likely ones."""
OTHER_TOKENIZER = (
    "Log-probabilities of tokens need the same tokenizer (data.tokenizer) on both sides. With "
    "another tokenizer, train on texts of the model (instil generate)"
)


class RemoteModel(nn.Module):
    """Model that requests its role ``top`` from a server when the role is read.

    Values at padding have no meaning.

    Args:
        server: connection to the server, with a log of its responses.
        size: number of most likely tokens per position.
        vocabulary: number of tokens of the data's tokenizer.
    """

    def __init__(self, server: Server, size: int, vocabulary: int):
        super().__init__()
        self.server = server
        self.size = size
        self.vocabulary = vocabulary

    def __deepcopy__(self, memo: Any) -> RemoteModel:
        # The model has no state, and copies must share the connection and the budget.
        return self

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Outputs:
        """Return ``top`` (N, T, size), computed when it is read.

        Args:
            input_ids: (N, T).
            attention_mask: (N, T), 0 for padding.
        """
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        self._check_first_rows(input_ids, mask)
        return LazyOutputs({}, {"top": lambda: self._top(input_ids, mask)})

    def _check_first_rows(self, ids: Tensor, mask: Tensor) -> None:
        """Request the first rows at once, to detect a different vocabulary before training."""
        key = question_key("seen", {"model": self.server.name, "vocabulary": self.vocabulary})
        if self.server.log.get(key) is None:
            positions = mask.cpu().sum(1).cumsum(0)
            rows = int((positions < 2 * MIN_TOKENS).sum()) + 1
            self._top(ids[:rows], mask[:rows])
            if positions[-1] >= 2 * MIN_TOKENS:
                self.server.log.put(key, True, NOTE)

    def _top(self, ids: Tensor, mask: Tensor) -> Top:
        rows = ids.cpu()
        is_token = mask.cpu() > 0
        # Padding has a uniform distribution over ``size`` tokens and the tail.
        values = torch.full((*rows.shape, self.size), -math.log(self.size + 1))
        indices = torch.arange(self.size, dtype=torch.int32).expand(*rows.shape, -1).clone()
        tail = values[..., 0].clone()
        texts = [row[selected].tolist() for row, selected in zip(rows, is_token, strict=True)]
        for i, top in enumerate(self.server.top(texts, self.size)):
            values[i, is_token[i]] = top.values
            indices[i, is_token[i]] = top.indices
            tail[i, is_token[i]] = top.log_tail
        self._check_vocabulary(rows, indices, is_token)
        return Top(values.to(ids.device), indices.to(ids.device), tail.to(ids.device))

    def _check_vocabulary(self, ids: Tensor, indices: Tensor, is_token: Tensor) -> None:
        """Raise ValueError if the server's vocabulary differs."""
        largest = int(indices.max())
        if largest >= self.vocabulary:
            raise ValueError(
                f"vocabulary: the server's model has a token {largest}, but the tokenizer of the "
                f"data has {self.vocabulary} tokens. {OTHER_TOKENIZER}"
            )
        # With another vocabulary, the next token of a text is rarely a likely one.
        is_followed = is_token[:, 1:] & is_token[:, :-1]
        hits = (indices[:, :-1] == ids[:, 1:, None]).any(-1)[is_followed]
        if len(hits) < MIN_TOKENS:
            return
        share = float(hits.float().mean())
        if share < MIN_HIT_RATE:
            raise ValueError(
                f"vocabulary: only {share:.0%} of {len(hits)} tokens are among the {self.size} "
                "most likely tokens of the server's model, so its vocabulary differs. "
                f"{OTHER_TOKENIZER}"
            )


def remote(
    url: str,
    name: str | None = None,
    size: PositiveInt = 20,
    key: str = KEY,
    log: str | None = None,
    concurrency: PositiveInt = 8,
    request_budget: PositiveInt | None = None,
    token_budget: PositiveInt | None = None,
    retries: NonNegativeInt = 6,
    timeout: Positive = 120.0,
    vocabulary: NonNegativeInt = 0,
    tokens: Sequence[int] = (),
) -> nn.Module:
    """Connect to a language model on a server.

    Args:
        url: address, such as http://127.0.0.1:8080/v1.
        name: name of the model; None for the only one on the server.
        size: number of most likely tokens per position.
        key: environment variable with the server's key.
        log: file with all responses; None for a file in ``$INSTIL_CACHE`` or ``~/.cache/instil``,
            named after url and name.
        concurrency: number of requests at a time.
        request_budget: largest number of requests in the log; None for no limit.
        token_budget: largest number of tokens in the log; None for no limit.
        retries: number of retries per request.
        timeout: time limit of one response, in seconds.
        vocabulary: number of tokens of the data's tokenizer.
        tokens: token ids of a pruned vocabulary; must be empty.

    Raises:
        ValueError: if the server does not respond, or the data have no tokens or a pruned
            vocabulary.
    """
    if size < 1:
        raise ValueError(f"size: too small. Expected at least 1 token per position, got {size}")
    if tokens:
        raise ValueError(
            "data.prune: the server's model predicts its whole vocabulary, so the student "
            "needs it too. Remove prune"
        )
    if not vocabulary:
        raise ValueError(
            "teacher: a model on a server needs token ids, and the data have none. Use it with "
            "task: language"
        )
    if log is None:
        digest = hashlib.sha256(f"{url} {name}".encode()).hexdigest()[:16]
        path = cache_folder() / "remote" / f"{digest}.jsonl"
    else:
        path = Path(log)
    server = Server(
        url, name, key, path, concurrency, request_budget, token_budget, retries, timeout
    )
    return RemoteModel(server, size, vocabulary)
