"""Recognition of sequences of tones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from instil import Card
from instil.core import UNLABELLED, Batch, Objective, Objectives, Outputs
from instil.tasks.bases.task import Evaluation, Task

BLANK = 0


def call(model: nn.Module, batch: Batch, roles: Any = None) -> Outputs:
    """Outputs of a recogniser: ``logits`` (N, T, C) of the frames."""
    return {"logits": model(batch["audio"])}


def decode(logits: Tensor, valid: Tensor) -> list[list[int]]:
    """Likeliest class of each frame, without repeats and blanks.

    Args:
        logits: (N, T, C).
        valid: boolean (N, T).
    """
    sequences = []
    for classes, is_valid in zip(logits.argmax(-1), valid, strict=True):
        merged = torch.unique_consecutive(classes[is_valid])
        sequences.append(merged[merged != BLANK].tolist())
    return sequences


class ToneRecognition(Task):
    """Sequences of classes in audio; ``logits`` (N, T, C) of frames, class 0 is the blank.

    Labels are class indices (N, L), padded with -100.
    """

    card = Card("Tone recognition", tasks=("tone_recognition",))
    title = "tone recognition"
    names = ("audio", "label")
    inputs = ("audio", "valid")
    kinds = ("sequence",)
    label_objectives = ("tone_ctc",)
    headline = "error_rate"
    higher_is_better = False
    baselines: ClassVar = {"sequence": ("alone", "pseudo_labels")}
    call = staticmethod(call)

    def __init__(self) -> None:
        super().__init__("sequence")

    def check(self, objectives: Mapping[str, Objective] | Objectives) -> None:
        """Check objectives of labels; frame losses such as ``kd`` need none."""
        super().check({name: one for name, one in objectives.items() if one.items.labelled})

    def pseudo_labels(self, outputs: Outputs, label: Tensor) -> Tensor:
        """Decoded sequences of the teacher for recordings without a label."""
        logits = outputs["logits"]
        sequences = decode(logits, torch.ones(logits.shape[:2], dtype=torch.bool))
        filled = label.clone()
        for row, sequence in enumerate(sequences):
            if bool((label[row] == UNLABELLED).all()):
                length = min(len(sequence), label.shape[1])
                filled[row, :length] = torch.tensor(sequence[:length], dtype=label.dtype)
        return filled

    def evaluate(
        self, net: nn.Module, batches: Iterable[Any], teacher: nn.Module | None = None
    ) -> Evaluation:
        """Error rate (edit distance per label), and agreement with the teacher's sequences."""
        from torchmetrics.functional.text import char_error_rate

        texts: dict[str, list[str]] = {"student": [], "teacher": [], "label": []}
        for batch, outputs, teacher_outputs in self.iter_outputs(net, batches, teacher):
            texts["student"] += _texts(decode(outputs["logits"], batch["valid"]))
            texts["label"] += _texts([row[row != UNLABELLED].tolist() for row in batch["label"]])
            if teacher is not None:
                texts["teacher"] += _texts(decode(teacher_outputs["logits"], batch["valid"]))
        metrics = {"error_rate": float(char_error_rate(texts["student"], texts["label"]))}
        if teacher is not None:
            same = [a == b for a, b in zip(texts["student"], texts["teacher"], strict=True)]
            metrics["agreement"] = sum(same) / len(same)
        return metrics, {}


def _texts(sequences: list[list[int]]) -> list[str]:
    """One letter for each class, as the metric wants."""
    return ["".join(chr(ord("a") + index) for index in sequence) for sequence in sequences]
