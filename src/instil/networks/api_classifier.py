"""Classifier of texts behind an OpenAI-compatible API."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from instil.core import Batch, Outputs
from instil.data.keys import sample_keys
from instil.data.splits import Splits
from instil.functional.log_probabilities import log_of
from instil.remote.server import Server


class ApiClassifier(nn.Module):
    """Language model whose probabilities of label words are the logits of a text.

    Each text is sent once; the answers are in the log of the server.

    Args:
        server: connection to the API.
        texts: text of each sample, by its key.
        prompt: message with ``{text}``.
        labels: label word of each class; None for the class names of the data.
        system: system message; None for none.
    """

    def __init__(
        self,
        server: Server,
        texts: dict[str, str],
        prompt: str,
        labels: Sequence[str] | None = None,
        system: str | None = None,
    ):
        super().__init__()
        self.server = server
        self.texts = texts
        self.prompt = prompt
        self.labels = labels
        self.system = system
        self.text_of_index: dict[int, str] = {}
        self.logits_of_index: dict[int, Tensor] = {}

    def __deepcopy__(self, memo: Any) -> ApiClassifier:
        # Copies share the connection and the budget.
        return self

    def bind(self, splits: Splits) -> None:
        """Find the text of every sample.

        Args:
            splits: data whose samples have different indices in all splits.

        Raises:
            ValueError: if a sample has no text, or the number of labels is not that of the classes.
        """
        self.labels = self.labels or splits.classes
        if len(self.labels) != len(splits.classes):
            raise ValueError(
                f"labels: expected one word for each of the {len(splits.classes)} classes, got "
                f"{len(self.labels)}"
            )
        for part, keys in sample_keys(splits).items():
            missing = [key for key in keys if key not in self.texts]
            if missing:
                raise ValueError(
                    f"texts: {len(missing)} of {len(keys)} {part} samples have no text, such as "
                    f"'{missing[0]}'. The file has keys such as '{next(iter(self.texts), '')}'"
                )
            index = getattr(splits, part).index.tolist()
            self.text_of_index |= {i: self.texts[key] for i, key in zip(index, keys, strict=True)}

    def call_batch(self, batch: Batch) -> Outputs:
        """Return the ``logits`` (N, C) of the samples.

        Args:
            batch: batch with ``index`` (N,).
        """
        return {"logits": self(batch["index"])}

    def forward(self, index: Tensor) -> Tensor:
        """Return the logits (N, C) of samples.

        Args:
            index: (N,).
        """
        rows = index.tolist()
        missing = [row for row in dict.fromkeys(rows) if row not in self.logits_of_index]
        prompts = [self.prompt.replace("{text}", self.text_of_index[row]) for row in missing]
        assert self.labels is not None
        answers = self.server.label_probabilities(prompts, self.labels, self.system)
        for row, probabilities in zip(missing, answers, strict=True):
            self.logits_of_index[row] = log_of(torch.tensor(probabilities))
        return torch.stack([self.logits_of_index[row] for row in rows]).to(index.device)


def read_texts(file: Path) -> dict[str, str]:
    """Read the texts of samples from JSON lines with ``text`` and, optionally, ``key``.

    Args:
        file: the file. Without ``key`` the key of a text is its line, from 0.

    Raises:
        ValueError: for a missing file, a line without a text, or a key that stands twice.
    """
    if not file.is_file():
        raise ValueError(f"texts: there is no file {file}")
    texts: dict[str, str] = {}
    for line_number, line in enumerate(file.read_text(encoding="utf-8").splitlines()):
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise ValueError(f"texts: {file.name}, line {line_number + 1}: invalid JSON") from error
        if not isinstance(entry, dict) or not isinstance(entry.get("text"), str):
            raise ValueError(
                f"texts: {file.name}, line {line_number + 1} has no 'text'. Expected "
                '{"key": ..., "text": ...}'
            )
        key = str(entry.get("key", line_number))
        if key in texts:
            raise ValueError(f"texts: {file.name} has the key '{key}' twice. Expected it once")
        texts[key] = entry["text"]
    return texts
