"""Edit distance of decoded sequences per word of the labels."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge
from torch import Tensor
from typing_extensions import Doc

from instil.core import Card
from instil.metrics.bases.sequence_metric import BlankOption, SequenceMetric


class WordErrorRate(SequenceMetric):
    """Word error rate: substitutions, insertions and deletions per word of the labels."""

    card = Card(
        "Word error rate",
        tasks=("speech_recognition",),
        labels=("sequence",),
        use="Recognition of speech or text, where one symbol separates words.",
        pitfalls="It may exceed 1. Set blank for a network that is trained with CTC.",
    )

    def __init__(
        self,
        separator: Annotated[int, Ge(0), Doc("class of the symbol between two words")],
        blank: BlankOption = None,
    ) -> None:
        self.separator = separator
        super().__init__(blank)

    def text_of(self, symbols: Tensor) -> str:
        """Return a text with one character for each symbol, and spaces between words."""
        separator = super().text_of(symbols.new_tensor([self.separator]))
        return super().text_of(symbols).replace(separator, " ")

    def error_rate(self, predictions: list[str], labels: list[str]) -> float:
        from torchmetrics.functional.text import word_error_rate

        return float(word_error_rate(predictions, labels))
