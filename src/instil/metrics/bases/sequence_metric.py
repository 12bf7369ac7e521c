"""Base class of metrics of decoded label sequences."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor
from typing_extensions import Doc

from instil.core import UNLABELLED, Batch, Outputs
from instil.metrics.bases.metric import Metric

BlankOption = Annotated[
    int | None,
    Ge(0),
    Doc("class of the CTC blank: repeats and blanks are removed; None: one symbol per position"),
]
SYMBOLS = 0x4E00
"""First character that stands for a class: no white space is among those that follow."""


class SequenceMetric(Metric):
    """Base class of error rates of the most likely symbols of ``logits`` (N, T, C).

    Labels are int64 (N, L), padded with -100; a sample without a label is left out. Positions with
    ``valid`` (N, T) False are left out of a prediction, as are those from ``frame_length`` (N,) of
    the outputs on: frames of recordings that are padded to the longest of their batch.

    Args:
        blank: class of the CTC blank; None: one symbol per position.
    """

    higher_is_better = False

    def __init__(self, blank: int | None = None) -> None:
        self.blank = blank
        self.reset()

    def reset(self) -> None:
        self._predictions: list[str] = []
        self._labels: list[str] = []

    def update(self, outputs: Outputs, batch: Batch) -> None:
        _check_shapes(outputs, batch)
        symbols = outputs["logits"].detach().argmax(-1).cpu()
        valid = batch.get("valid", torch.ones_like(symbols)).bool().cpu()
        if "frame_length" in outputs:
            length = outputs["frame_length"].cpu()[:, None]
            valid = valid & (torch.arange(symbols.shape[1]) < length)
        for row, is_valid, label in zip(symbols, valid, batch["label"].cpu(), strict=True):
            target = label[label != UNLABELLED]
            if len(target):
                self._predictions.append(self.text_of(self._decoded(row[is_valid])))
                self._labels.append(self.text_of(target))

    def _decoded(self, symbols: Tensor) -> Tensor:
        """Symbols of a sequence, without repeats and blanks if there is a blank."""
        if self.blank is None:
            return symbols
        merged: Tensor = torch.unique_consecutive(symbols)
        return merged[merged != self.blank]

    def text_of(self, symbols: Tensor) -> str:
        """Return a text with one character for each symbol.

        Args:
            symbols: (L,), int64.
        """
        return "".join(chr(SYMBOLS + symbol) for symbol in symbols.tolist())

    def compute(self) -> float:
        if not self._labels:
            raise ValueError("no sequence to evaluate on has a label")
        return self.error_rate(self._predictions, self._labels)

    @abstractmethod
    def error_rate(self, predictions: list[str], labels: list[str]) -> float:
        """Return the edit distance per symbol or word of the labels."""


def _check_shapes(outputs: Outputs, batch: Batch) -> None:
    logits, label = tuple(outputs["logits"].shape), tuple(batch["label"].shape)
    if len(logits) != 3 or len(label) != 2 or logits[0] != label[0]:
        raise ValueError(
            f"logits {logits} and labels {label}. Expected logits (N, T, C) and labels (N, L)"
        )
    expected = {"valid": (batch, logits[:2]), "frame_length": (outputs, logits[:1])}
    for name, (source, shape) in expected.items():
        if name in source and tuple(source[name].shape) != shape:
            raise ValueError(
                f"{name}: wrong shape for logits {logits}. Expected {shape}, got "
                f"{tuple(source[name].shape)}"
            )
