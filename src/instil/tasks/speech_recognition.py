"""Speech recognition with connectionist temporal classification."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from instil.core import UNLABELLED, Card, Outputs
from instil.functional.ctc import greedy_sequences
from instil.tasks.bases.audio_call import call_frames
from instil.tasks.bases.audio_task import AudioTask
from instil.tasks.bases.task import Evaluation, LabelKind

SHOWN = 10
"""Number of transcripts in the details of an evaluation."""
SPACE = " "
PRIVATE_LETTERS = 0xE000
"""First character that has no meaning in Unicode, so that no symbol is taken for a space."""


class SpeechRecognition(AudioTask):
    """Recognition of text in audio; ``logits`` (N, T, C) of frames, class 0 is the blank of CTC.

    Labels are symbol indices (N, L), padded with -100. Texts are decoded greedily: the most likely
    class of each frame, without repetitions and blanks.

    Args:
        kind: kind of the labels: ``sequence``.
    """

    card = Card("Speech recognition", tasks=("speech_recognition",))
    title = "speech recognition"
    roles = ("logits", "frame_length")
    kinds = ("sequence",)
    label_objectives = ("ctc",)
    headline = "character_error_rate"
    higher_is_better = False
    secondary = ("word_error_rate",)
    baselines: ClassVar = {"sequence": ("alone", "pseudo_labels")}
    label_hint = "Class 0 is the blank, which no label may have"
    call = staticmethod(call_frames)

    def __init__(self, kind: LabelKind = "sequence") -> None:
        super().__init__(kind)
        self.class_names: tuple[str, ...] = ()

    def set_classes(self, classes: Sequence[str]) -> None:
        """Receive the symbols of the data, for word error rates and texts.

        Args:
            classes: names of the classes; the first one is the blank.
        """
        self.class_names = tuple(classes)

    def pseudo_labels(self, outputs: Outputs, label: Tensor) -> Tensor:
        """Return the labels, with the teacher's greedy text for recordings without a label.

        Args:
            outputs: teacher outputs.
            label: (N, L), -100 for no label. Longer texts are cut to L symbols.
        """
        filled = label.clone()
        sequences = greedy_sequences(outputs["logits"], outputs["frame_length"])
        for row, sequence in enumerate(sequences):
            if bool((label[row] == UNLABELLED).all()):
                symbols = torch.tensor(sequence[: label.shape[1]], dtype=label.dtype)
                filled[row, : len(symbols)] = symbols.to(label.device)
        return filled

    def evaluate(
        self, net: nn.Module, batches: Iterable[Any], teacher: nn.Module | None = None
    ) -> Evaluation:
        """Compute error rates of greedy texts and the agreement with the teacher's texts.

        Args:
            net: network to evaluate.
            batches: batches of the test data.
            teacher: network for ``agreement``, the share of recordings with equal texts.

        Returns:
            ``character_error_rate``, ``word_error_rate`` if the symbols have a space, and
            ``agreement``. The details have the texts of the first recordings.
        """
        sequences: dict[str, list[list[int]]] = {"student": [], "teacher": [], "label": []}
        for batch, outputs, teacher_outputs in self.iter_outputs(net, batches, teacher):
            rows = (batch["label"] != UNLABELLED).any(1)
            sequences["label"] += [row[row != UNLABELLED].tolist() for row in batch["label"][rows]]
            sides = {"student": outputs}
            if teacher is not None:
                sides["teacher"] = teacher_outputs
            for name, side in sides.items():
                logits, length = side["logits"][rows], side["frame_length"][rows]
                sequences[name] += greedy_sequences(logits, length)
        texts = {name: self._one_letter_each(rows) for name, rows in sequences.items()}
        metrics = self._error_rates(texts["student"], texts["label"])
        if teacher is not None:
            same = [a == b for a, b in zip(texts["student"], texts["teacher"], strict=True)]
            metrics["agreement"] = sum(same) / len(same)
        return metrics, self._details(sequences)

    def _error_rates(self, predictions: list[str], labels: list[str]) -> dict[str, float]:
        from torchmetrics.functional import text

        if not any(labels):
            raise ValueError("no recording to evaluate on has a label")
        metrics = {"character_error_rate": float(text.char_error_rate(predictions, labels))}
        if SPACE in self.class_names:
            metrics["word_error_rate"] = float(text.word_error_rate(predictions, labels))
        return metrics

    def _one_letter_each(self, sequences: Sequence[Sequence[int]]) -> list[str]:
        """Texts with one character per symbol, whatever the names of the symbols are."""
        letters = {index: chr(PRIVATE_LETTERS + index) for index in set().union(*sequences)}
        if SPACE in self.class_names:
            letters[self.class_names.index(SPACE)] = SPACE
        return ["".join(letters[index] for index in sequence) for sequence in sequences]

    def transcripts(self, outputs: Outputs) -> list[str]:
        """Return the greedy texts of the outputs of a network."""
        sequences = greedy_sequences(outputs["logits"], outputs["frame_length"])
        return [self._text(sequence) for sequence in sequences]

    def _details(self, sequences: Mapping[str, list[list[int]]]) -> dict[str, Any]:
        if not self.class_names:
            return {}
        shown = {}
        for name, of_side in sequences.items():
            shown[name] = [self._text(sequence) for sequence in of_side[:SHOWN]]
        return {"transcripts": shown}

    def _text(self, sequence: Sequence[int]) -> str:
        return "".join(self.class_names[index] for index in sequence)
