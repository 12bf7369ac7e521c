"""A causal language model behind a server, which says of every position the likeliest next tokens."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from instil.core import Outputs
from instil.remote.log import NOTE, question_key
from instil.remote.server import KEY, Server
from instil.roles import LazyOutputs, Top

MATTERS = ("name", "size")
"""Options on which the answers depend; the others say where and how they are asked for."""


class RemoteModel(nn.Module):
    """``top`` (N, T, size) of ``input_ids`` (N, T), asked of a server when it is read; what it says of padding means nothing."""

    def __init__(self, server: Server, size: int, vocabulary: int):
        super().__init__()
        self.server, self.size, self.vocabulary = server, size, vocabulary

    def __deepcopy__(self, memo: Any) -> RemoteModel:
        return self

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Outputs:
        there = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        self._look(input_ids, there)
        return LazyOutputs({}, {"top": lambda: self._top(input_ids, there)})

    def _look(self, ids: Tensor, there: Tensor) -> None:
        """The first rows are asked about at once, so that what cannot be is known before anything is trained."""
        seen = question_key("seen", {"model": self.server.name, "vocabulary": self.vocabulary})
        if self.server.log.get(seen) is None:
            positions = there.cpu().sum(1).cumsum(0)
            rows = int((positions < 2 * ENOUGH).sum()) + 1
            self._top(ids[:rows], there[:rows])
            if positions[-1] >= 2 * ENOUGH:
                self.server.log.put(seen, True, NOTE)

    def _top(self, ids: Tensor, there: Tensor) -> Top:
        rows, places = ids.cpu(), there.cpu() > 0
        values = torch.full((*rows.shape, self.size), -math.log(self.size + 1))
        indices = torch.arange(self.size, dtype=torch.int32).expand(*rows.shape, -1).clone()
        tail = values[..., 0].clone()
        asked = self.server.top(
            [row[place].tolist() for row, place in zip(rows, places, strict=True)], self.size
        )
        for number, (top, place) in enumerate(zip(asked, places, strict=True)):
            values[number, place], indices[number, place], tail[number, place] = (
                top.values,
                top.indices,
                top.log_tail,
            )
        self._check(rows, indices, places)
        return Top(values.to(ids.device), indices.to(ids.device), tail.to(ids.device))

    def _check(self, ids: Tensor, indices: Tensor, there: Tensor) -> None:
        """ValueError where the numbers cannot be of the same tokens on both sides: what comes next is then hardly ever likely."""
        if (most := int(indices.max())) >= self.vocabulary:
            raise ValueError(
                f"vocabulary: the server's model knows a token {most}, the tokenizer of the data has {self.vocabulary} tokens; {OTHER}"
            )
        said = (indices[:, :-1] == ids[:, 1:, None]).any(-1)[there[:, 1:] & there[:, :-1]]
        if len(said) >= ENOUGH and (share := float(said.float().mean())) < RIGHT:
            many = f"only {share:.0%} of {len(said)} tokens are among the {self.size} that the server's model expected"
            raise ValueError(
                f"vocabulary: {many}: it reads another text in the numbers of the data's tokens; {OTHER}"
            )


ENOUGH, RIGHT = 64, 0.05
"""A model of the same tokens expects more than this share of so many tokens of any text."""
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
) -> nn.Module:
    """The model ``name`` of the server at ``url``: of each position the ``size`` likeliest tokens, see ``Server`` for the other options.

    ``log`` is by default a file in ``$INSTIL_CACHE`` or ``~/.cache/instil``, named by url and name. Raises ValueError where the server is not there,
    and for data whose vocabulary was pruned.
    """
    if size < 1:
        raise ValueError(f"size: at least one token of each position, not {size}")
    if tokens:
        raise ValueError(
            "data.prune: the server's model speaks of its whole vocabulary, so the student must have it too; leave prune out"
        )
    if not vocabulary:
        raise ValueError(
            "a server's model reads tokens, and these data have none; it teaches the task language"
        )
    cache = Path(os.environ.get("INSTIL_CACHE") or Path.home() / ".cache" / "instil")
    kept = (
        cache / "remote" / f"{hashlib.sha256(f'{url} {name}'.encode()).hexdigest()[:16]}.jsonl"
        if log is None
        else Path(log)
    )
    return RemoteModel(
        Server(url, name, key, kept, concurrency, request_budget, token_budget, retries, timeout),
        size,
        vocabulary,
    )
