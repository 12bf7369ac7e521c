"""A causal language model behind a server, which says of every position the likeliest next tokens."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from instil.core import Lazily, Outputs, Top
from instil.remote.server import KEY, Server

MATTERS = ("name", "size")
"""Options on which the answers depend; the others say where and how they are asked for."""


class RemoteModel(nn.Module):
    """``top`` (N, T, size) of ``input_ids`` (N, T), asked of a server when it is read; padding is told nothing that can be learned."""

    def __init__(self, server: Server, size: int, vocabulary: int):
        super().__init__()
        self.server, self.size, self.vocabulary = server, size, vocabulary
        self._checked = False

    def __deepcopy__(self, memo: Any) -> RemoteModel:
        return self

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Outputs:
        return Lazily({}, {"top": lambda: self._top(input_ids, torch.ones_like(input_ids) if attention_mask is None else attention_mask)})

    def _top(self, ids: Tensor, there: Tensor) -> Top:
        rows = [row[mask > 0].tolist() for row, mask in zip(ids.cpu(), there.cpu(), strict=True)]
        if not self._checked:
            self._check(max(rows, key=len))
        lone = len(ids), ids.shape[1]
        values = torch.full((*lone, self.size), -torch.tensor(self.size + 1.0).log().item())
        indices = torch.arange(self.size, dtype=torch.int32).expand(*lone, -1).clone()
        tail = values[..., 0].clone()
        for number, top in enumerate(self.server.top(rows, self.size)):
            place = there[number].cpu() > 0
            values[number, place], indices[number, place], tail[number, place] = top.values, top.indices, top.log_tail
        if int(indices.max()) >= self.vocabulary:
            raise ValueError(f"the server's model knows a token {int(indices.max())}, the tokenizer of the data {self.vocabulary} tokens: {OTHER}")
        return Top(values.to(ids.device), indices.to(ids.device), tail.to(ids.device))

    def _check(self, row: list[int]) -> None:
        if self.server.same_tokens(row) is False:
            raise ValueError(f"the server's model reads other text in the tokens of the data: {OTHER}")
        self._checked = True


OTHER = "log-probabilities of tokens need the same tokenizer (data.tokenizer) on both sides; from another model learn by its texts (instil generate)"


def remote(
    url: str,
    name: str | None = None,
    size: int = 20,
    key: str = KEY,
    log: str | None = None,
    concurrency: int = 8,
    request_budget: int | None = None,
    token_budget: int | None = None,
    retries: int = 6,
    timeout: float = 120.0,
    vocabulary: int = 0,
    tokens: Sequence[int] = (),
    base: Path = Path(),
) -> nn.Module:
    """The model ``name`` of the server at ``url``: of each position the ``size`` likeliest tokens, see ``Server`` for the other options.

    ``log`` is by default a file in ``$INSTIL_CACHE`` or ``~/.cache/instil``, named by url and name. Raises ValueError where the server is not there,
    and for data whose vocabulary was pruned.
    """
    if tokens:
        raise ValueError("data.prune: the server's model speaks of its whole vocabulary, so the student must have it too; leave prune out")
    if not vocabulary:
        raise ValueError("a server's model reads tokens, and these data have none; it teaches the task language")
    cache = Path(os.environ.get("INSTIL_CACHE") or Path.home() / ".cache" / "instil")
    kept = cache / "remote" / f"{hashlib.sha256(f'{url} {name}'.encode()).hexdigest()[:16]}.jsonl" if log is None else Path(base) / log
    return RemoteModel(Server(url, name, key, kept, concurrency, request_budget, token_budget, retries, timeout), size, vocabulary)
