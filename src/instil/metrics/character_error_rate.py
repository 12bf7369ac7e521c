"""Edit distance of decoded sequences per symbol of the labels."""

from __future__ import annotations

from instil.core import Card
from instil.metrics.bases.sequence_metric import BlankOption, SequenceMetric


class CharacterErrorRate(SequenceMetric):
    """Character error rate: substitutions, insertions and deletions per symbol of the labels."""

    card = Card(
        "Character error rate",
        tasks=("speech_recognition",),
        labels=("sequence",),
        use="Recognition of speech or text, where a label is a sequence of symbols.",
        pitfalls="It may exceed 1. Set blank for a network that is trained with CTC.",
    )

    def __init__(self, blank: BlankOption = None) -> None:
        super().__init__(blank)

    def error_rate(self, predictions: list[str], labels: list[str]) -> float:
        from torchmetrics.functional.text import char_error_rate

        return float(char_error_rate(predictions, labels))
